# SPDX-License-Identifier: Apache-2.0
# Included by the top Makefile: the one program of the laboratory that is not Python, for tests, demo and bench alike.
build/tests/enter: tests/lab/enter.c tests/lab/build.mk
	@mkdir -p $(@D)
	@$(CC) -O2 -Wall -Wextra -Werror -o $@ $<
