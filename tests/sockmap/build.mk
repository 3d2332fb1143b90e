# SPDX-License-Identifier: Apache-2.0
# Included by the top Makefile: what only the tests of bypath-sockmap compile, into build/tests.
TEST_CC ?= cc
LOAD_SOURCES := $(wildcard tests/sockmap/load/*.c)

.PHONY: test-programs
test-programs: build/tests/exchange $(addprefix build/tests/,naive.bpf.o probe.bpf.o starved.bpf.o)

build/tests:
	mkdir -p $@

build/tests/exchange: $(LOAD_SOURCES) tests/sockmap/load/load.h tests/sockmap/build.mk | build/tests
	$(TEST_CC) -O2 -Wall -Wextra -Werror -pthread -o $@ $(LOAD_SOURCES)

build/tests/%.bpf.o: tests/sockmap/%.bpf.c $(BPF_SOURCES) $(BPF_HEADERS) bpf/build.mk | build/tests
	$(CLANG) $(BPF_CFLAGS) -c $< -o $@
