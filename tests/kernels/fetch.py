# SPDX-License-Identifier: Apache-2.0
"""Debian's kernels, fetched with apt from the machine's own mirror and unpacked into a cache outside the tree.

A kernel becomes CACHE/kernels/RELEASE/{vmlinuz,lib/modules/RELEASE}. apt works on a throw-away state directory with its
own list of sources, so neither the machine's sources nor its package database change; the packages' signatures are
checked as for any other package.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator

# Where each series is found; the one of 6.1 is Debian 12's own, so that its security updates count too.
SUITES: dict[str, tuple[str, ...]] = {
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("bookworm-backports",),
    "7.3": ("trixie-backports",),
}
KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TEMPLATE = pathlib.Path("/usr/share/python-apt/templates/Debian.info")


class FetchError(Exception):
    """A kernel cannot be had; the text ends with what to do about it."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One unpacked kernel."""

    directory: pathlib.Path

    @property
    def release(self) -> str:
        """What `uname -r` prints inside, e.g. 6.1.0-41-amd64."""
        return self.directory.name

    @property
    def image(self) -> pathlib.Path:
        """The bootable vmlinuz."""
        return self.directory / "vmlinuz"

    @property
    def modules(self) -> pathlib.Path:
        """The directory that modprobe expects at /lib/modules/RELEASE."""
        return self.directory / "lib/modules" / self.release


def cache() -> pathlib.Path:
    """Our directory outside the tree, kept between runs and checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("BYPATH_CACHE") or pathlib.Path(base) / "bypath") / "kernels"


def kernel(series: str, say: Callable[[str], None], refresh: bool = False) -> Kernel:
    """The newest cached kernel of a series such as "6.1", fetched when there is none. Raises FetchError."""
    if series not in SUITES:
        raise FetchError(f"no kernel series {series!r}; known: {', '.join(SUITES)}")
    cached = sorted(cache().glob(f"{series}.*"), key=lambda directory: directory.stat().st_mtime)
    if cached and not refresh:
        return Kernel(cached[-1])
    with tempfile.TemporaryDirectory(prefix="bypath-apt-") as scratch:
        apt = Apt(pathlib.Path(scratch), SUITES[series])
        say(f"reading the package lists of {', '.join(SUITES[series])}")
        apt.update()
        release = apt.newest(series)
        target = cache() / release
        if not target.exists():
            say(f"downloading and unpacking {release}")
            unpack(apt.download(release), target)
    return Kernel(target)


def mirrors() -> tuple[str, str]:
    """URIs of Debian's archive and of its security archive ("" when unknown), from this machine's configuration."""
    if chosen := os.environ.get("BYPATH_DEBIAN_MIRROR"):
        return chosen, os.environ.get("BYPATH_DEBIAN_SECURITY_MIRROR", "")
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    listed = run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]).splitlines()
    found = [line.split() for line in listed]
    # Without downloaded lists apt leaves $(ORIGIN) as it is; then the first entry decides, by habit Debian's own.
    ours = [f for f in found if f[3:] == ["Debian"]] or [f for f in found if is_debian() and f[3] == "$(ORIGIN)"]
    main = [f[0] for f in ours if f[2] == "main" and "-" not in f[1]]
    security = [f[0] for f in ours if f[2] == "main" and f[1].endswith("-security")]
    main += template_uris()
    if not main:
        raise FetchError(
            "this machine's apt knows no Debian mirror; type: apt-get install python-apt-common, "
            "or set BYPATH_DEBIAN_MIRROR to the URI of one"
        )
    return main[0], next(iter(security), "")


def is_debian() -> bool:
    """Whether this machine itself is a Debian."""
    return "ID=debian" in pathlib.Path("/etc/os-release").read_text().splitlines()


def template_uris() -> list[str]:
    """The archive that Ubuntu's python-apt-common names for Debian; empty when it is not installed."""
    return re.findall(r"^BaseURI: (\S+/debian/?)$", TEMPLATE.read_text(), re.M) if TEMPLATE.exists() else []


@functools.cache
def architecture() -> str:
    """Debian's name of this machine's architecture, e.g. amd64."""
    return run(["dpkg", "--print-architecture"]).strip()


class Apt:
    """apt on a private state directory and private sources."""

    def __init__(self, scratch: pathlib.Path, suites: tuple[str, ...]) -> None:
        if not KEYRING.exists():
            raise FetchError("Debian's archive keys are missing; type: apt-get install debian-archive-keyring")
        self.scratch = scratch
        for part in ("state/lists/partial", "cache/archives/partial", "parts", "packages"):
            (scratch / part).mkdir(parents=True)
        (scratch / "status").touch()
        main, security = mirrors()
        uris = {suite: security if suite.endswith("-security") else main for suite in suites}
        lines = [f"deb [signed-by={KEYRING}] {uri} {suite} main\n" for suite, uri in uris.items() if uri]
        (scratch / "sources.list").write_text("".join(lines))

    def options(self) -> Iterator[str]:
        """What keeps apt away from the machine's own state."""
        yield from ("-o", f"Dir::State={self.scratch}/state", "-o", f"Dir::State::status={self.scratch}/status")
        yield from ("-o", f"Dir::Cache={self.scratch}/cache", "-o", f"Dir::Etc::sourceparts={self.scratch}/parts")
        yield from ("-o", f"Dir::Etc::sourcelist={self.scratch}/sources.list", "-o", "APT::Sandbox::User=root")
        # Descriptions and file lists are most of a download and of no use here; three tries bridge a short outage.
        yield from ("-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3", "-o", "APT::Get::List-Cleanup=0")

    def call(self, program: str, *args: str) -> str:
        """Standard output of apt-get or apt-cache, run in the directory for downloads. Raises FetchError."""
        return run([program, "-q", *self.options(), *args], cwd=self.scratch / "packages")

    def update(self) -> None:
        """Read the package lists. A signature that does not verify is an error, not a warning."""
        self.call("apt-get", "update", "--error-on=any")

    def newest(self, series: str) -> str:
        """The newest release of a series, e.g. 6.1.0-41-amd64."""
        wanted = re.compile(rf"linux-image-({re.escape(series)}\.\d[^-]*(-\d+)?-{architecture()})")
        names = [name for name in self.call("apt-cache", "pkgnames", "linux-image-").split() if wanted.fullmatch(name)]
        if not names:
            raise FetchError(f"the mirror has no package of kernel {series}; set BYPATH_DEBIAN_MIRROR to one that has")
        shown = self.call("apt-cache", "show", "--no-all-versions", *names)
        versions: list[tuple[str, str]] = re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", shown, re.M | re.S)
        by_version = functools.cmp_to_key(compare)
        versions.sort(key=lambda version: by_version(version[1]))
        return versions[-1][0].removeprefix("linux-image-")

    def download(self, release: str) -> list[pathlib.Path]:
        """The package files that make up one kernel: up to 6.x linux-image is all, from 7 on it only names the rest."""
        known = self.call("apt-cache", "pkgnames", "linux-").split()
        parts = [f"linux-{part}-{release}" for part in ("image", "binary", "modules", "base")]
        self.call("apt-get", "download", *(part for part in parts if part in known))
        return sorted((self.scratch / "packages").glob("*.deb"))


def compare(a: str, b: str) -> int:
    """-1, 0 or 1 as Debian version a is older than, equal to or newer than b."""
    for sign, relation in ((-1, "lt"), (1, "gt")):
        if subprocess.run(["dpkg", "--compare-versions", a, relation, b], check=False).returncode == 0:
            return sign
    return 0


def unpack(packages: list[pathlib.Path], target: pathlib.Path) -> None:
    """Make `target` out of package files; it appears complete or not at all."""
    release = target.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=target.parent) as scratch:
        root, made = pathlib.Path(scratch, "root"), pathlib.Path(scratch, "made")
        for package in packages:
            run(["dpkg", "-x", str(package), str(root)])
        trees = [root / "lib/modules" / release, root / "usr/lib/modules" / release]
        images = [root / "boot" / f"vmlinuz-{release}", *(tree / "vmlinuz" for tree in trees)]
        (made / "lib/modules").mkdir(parents=True)
        shutil.move(next(image for image in images if image.exists()), made / "vmlinuz")
        shutil.move(next(tree for tree in trees if tree.is_dir()), made / "lib/modules" / release)
        run(["depmod", "-b", str(made), release])
        try:
            made.rename(target)
        except OSError:
            # Another run finished the same kernel in the meantime: rename does not replace a directory with content.
            if not target.exists():
                raise


def run(argv: list[str], cwd: pathlib.Path | None = None) -> str:
    """Standard output of a command. Raises FetchError with what it said when it fails."""
    env = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise FetchError(f"{argv[0]} failed ({argv[-1]}):\n{said}")
    return done.stdout
