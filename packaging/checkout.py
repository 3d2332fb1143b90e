# SPDX-License-Identifier: Apache-2.0
"""Runs an executable from the checkout: `python -I -S checkout.py bypath-host-gw`. The counterpart of boot.py."""

from __future__ import annotations

import posix
import sys

root = posix.getcwd() + "/" + __file__ if not __file__.startswith("/") else __file__
root = root.rpartition("/packaging/")[0]
name = sys.argv[1] if len(sys.argv) > 1 else ""
room = name.removeprefix("bypath-")
package = "cli" if name == "bypath" else room.replace("-", "_")
main = f"{package}/__main__.py" if name == "bypath" else f"plugins/{room}/{package}/__main__.py"
try:
    posix.stat(f"{root}/{main}")
except FileNotFoundError:
    sys.exit(f"{name or 'no name'}: there is no {main}; usage: bin/run bypath, or bin/run bypath-NAME")
rooms = posix.listdir(f"{root}/plugins") if name == "bypath" else [room]
sys.path[:0] = [root, *[f"{root}/plugins/{each}" for each in rooms]]
del sys.argv[0]
# Last, and for libbpf's library only: a hot module that needs anything else from there would not survive the build.
sys.path.append(f"{root}/.venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
__import__(f"{package}.__main__")
