# SPDX-License-Identifier: Apache-2.0
"""`python -m bench`: every benchmark, one after the other. Each writes its table to docs/benchmarks/."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import bench


def main() -> int:
    for found in pkgutil.iter_modules(bench.__path__):
        if found.ispkg:
            print(f"==> bench.{found.name}", flush=True)
            importlib.import_module(f"bench.{found.name}.__main__").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
