# SPDX-License-Identifier: Apache-2.0
# Everything installs what it needs first, runs without a question, and can be run again at any time.
SHELL := /bin/sh
PY := .venv/bin/python
KERNEL ?= 6.1
export START := $(or $(START),$(shell date +%s))

# One line of progress, with the time since the start.
define step
	@t=$$(( $$(date +%s) - $(START) )); printf '==> %3d:%02d %s\n' $$((t / 60)) $$((t % 60)) "$(1)"
endef

PYTHON_DIRS := $(wildcard bench bpf cli cni demo packaging tests) $(patsubst %/,%,$(dir $(wildcard plugins/*/*/__main__.py)))
C_FILES := $(wildcard bpf/progs/*.c bpf/include/*.h packaging/*.c tests/lab/*.c tests/sockmap/*.c tests/sockmap/load/*.[ch] bench/sockmap/load/*.[ch])
SOURCES := $(shell find cni bpf plugins cli packaging -name __pycache__ -prune -o -type f -print 2>/dev/null) pyproject.toml

# Prerequisites in the order in which they are written: deps comes before what needs it. Recipes are short; PyInstaller
# and pytest are where the time goes.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help deps bpf build check test soak demo bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 8

deps: ## install the apt packages that are missing, and .venv
	$(call step,deps: apt packages and .venv)
	@sh packaging/deps.sh

bpf: deps ## compile bpf/progs to build/bpf
-include bpf/build.mk
-include tests/lab/build.mk
-include tests/sockmap/build.mk
-include bench/sockmap/build.mk

build: deps bpf dist/bypath/.complete ## dist/bypath: an executable for each plugin, and the BPF objects

dist/bypath/.complete: $(SOURCES) $(BPF_OBJECTS)
	$(call step,build: PyInstaller makes dist/bypath)
	@mkdir -p build
	@.venv/bin/pyinstaller --noconfirm --log-level WARN --distpath dist --workpath build/pyinstaller packaging/bypath.spec
	@touch $@

check: deps ## ruff, mypy and clang-format
	$(call step,check: ruff)
	@$(PY) -m ruff check .
	$(call step,check: mypy)
	@$(PY) -m mypy $(PYTHON_DIRS)
	$(call step,check: clang-format)
	@$(if $(C_FILES),clang-format --dry-run -Werror $(C_FILES))

test: build build/tests/enter test-programs ## all tests, here and in a VM (KERNEL=6.1,6.12,7.3), then the table feature x kernel
	@$(PY) -m tests.kernels test --kernel $(KERNEL) $(if $(PYTEST),-- $(PYTEST))

soak: bpf build/tests/enter test-programs ## sockmap: a million exchanges and 10 GiB, every byte compared
	@$(PY) -m tests.sockmap.soak

demo: build build/tests/enter ## a two-node network of pods, shown step by step
	@bin/demo

bench: build build/tests/enter build/bench/load ## each plugin against its peers
	@$(PY) -m bench

clean: ## remove what was built; .venv and the kernels in the cache stay
	rm -rf build dist
