# SPDX-License-Identifier: Apache-2.0
"""Runs an executable from the checkout: `python -I -S checkout.py bypath-host-gw`. The counterpart of boot.py."""

from __future__ import annotations

import posix
import sys

root = posix.getcwd() + "/" + __file__ if not __file__.startswith("/") else __file__
root = root.rpartition("/packaging/")[0]
name = sys.argv[1] if len(sys.argv) > 1 else ""
room = name.removeprefix("bypath-")
package = room.replace("-", "_")
try:
    posix.stat(f"{root}/plugins/{room}/{package}/__main__.py")
except FileNotFoundError:
    sys.exit(f"{name or 'no name'}: there is no plugins/{room}/{package}/__main__.py; usage: bin/run bypath-NAME")
sys.path[:0] = [root, f"{root}/plugins/{room}"]
# Last, and for libbpf's library only: a hot module that needs anything else from there would not survive the build.
sys.path.append(f"{root}/.venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
__import__(f"{package}.__main__")
