# SPDX-License-Identifier: Apache-2.0
# Included by the top Makefile. `make bpf`: every bpf/progs/X.bpf.c becomes build/bpf/X.bpf.o and X.sha256.
# -mcpu=v3 for atomics that return a value; -g for BTF, the rest of the debug information is stripped again. BTF names
# the sources: relative to the checkout, so that the same sources give the same hash everywhere.
CLANG ?= clang
LLVM_STRIP ?= llvm-strip

BPF_SOURCES := $(wildcard bpf/progs/*.bpf.c)
BPF_HEADERS := $(wildcard bpf/include/*.h)
BPF_OBJECTS := $(BPF_SOURCES:bpf/progs/%.c=build/bpf/%.o)
BPF_HASHES := $(BPF_OBJECTS:.bpf.o=.sha256)
BPF_CFLAGS := -O2 -g -mcpu=v3 -target bpf -Wall -Wextra -Werror -Ibpf/include -fdebug-compilation-dir=.

.PHONY: bpf
bpf: $(BPF_OBJECTS) $(BPF_HASHES)

build/bpf:
	mkdir -p $@

build/bpf/%.bpf.o: bpf/progs/%.bpf.c $(BPF_HEADERS) bpf/build.mk | build/bpf
	$(CLANG) $(BPF_CFLAGS) -c $< -o $@.part
	$(LLVM_STRIP) -g $@.part
	mv $@.part $@

build/bpf/%.sha256: build/bpf/%.bpf.o
	sha256sum $< | cut -d' ' -f1 >$@
