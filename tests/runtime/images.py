# SPDX-License-Identifier: Apache-2.0
"""The two container images of the tests, packed from this machine's own programs into archives that ctr imports.

bypath.test/pause:1 is busybox alone, bypath.test/tools:1 adds curl, iperf3, ping and ip with the libraries they need.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.lab.executable import REPO

PAUSE, TOOLS = "bypath.test/pause:1", "bypath.test/tools:1"
PROGRAMS = {PAUSE: (), TOOLS: ("curl", "iperf3", "ping", "ip")}
APPLETS = ("sh", "cat", "grep", "kill", "ls", "mkdir", "nc", "ps", "setsid", "sleep", "touch", "true")
# Reaps what is orphaned to it and ends at once when told to, as a sandbox's first process has to.
INIT = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"


def located(program: str) -> Path:
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not found:
        raise FileNotFoundError(f"the test images need {program} on this machine")
    return Path(found)


def libraries(program: Path) -> set[str]:
    """Absolute paths, as the program's loader will look for them; an address in parentheses ends each line of ldd."""
    lines = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout.splitlines()
    return {word for line in lines for word in line.split() if word.startswith("/")}


def contents(programs: Iterable[str]) -> dict[str, Path]:
    """Path in the image -> file of this machine."""
    found = {"bin/busybox": located("busybox")}
    for program in map(located, programs):
        found[f"bin/{program.name}"] = program
        found.update((library.lstrip("/"), Path(library)) for library in libraries(program))
    return found


def layer(programs: Iterable[str]) -> bytes:
    """A tar of the whole root file system; equal inputs give equal bytes."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for directory in "tmp", "etc", "proc", "sys", "dev":
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        for path, source in sorted(contents(programs).items()):
            body = source.read_bytes()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(body), 0o755
            tar.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def archive(tag: str) -> bytes:
    """The image in the layout of `docker save`."""
    root = layer(PROGRAMS[tag])
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sh", "-c", INIT], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(root).hexdigest()}"]},
    }
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": root,
        "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode(),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def build(tag: str) -> Path:
    """The archive under build/images, made anew when this file or a program is newer."""
    target = REPO / "build" / "images" / f"{tag.split('/')[1].split(':')[0]}.tar"
    sources = [Path(__file__), *map(located, ("busybox", *PROGRAMS[tag]))]
    if not target.exists() or target.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_suffix(".half")
        half.write_bytes(archive(tag))
        half.replace(target)
    return target


def build_all() -> list[Path]:
    return [build(tag) for tag in PROGRAMS]


if __name__ == "__main__":
    print(*build_all(), sep="\n")
