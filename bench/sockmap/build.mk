# SPDX-License-Identifier: Apache-2.0
# Included by the top Makefile: the load of bench/sockmap becomes build/bench/load.
BENCH_LOAD := $(wildcard bench/sockmap/load/*.[ch])
BENCH_CFLAGS := -O2 -Wall -Wextra -Werror -std=gnu11 -pthread

build/bench/load: $(BENCH_LOAD) bench/sockmap/build.mk
	@mkdir -p $(@D)
	@$(CC) $(BENCH_CFLAGS) -o $@ $(filter %.c,$(BENCH_LOAD))
