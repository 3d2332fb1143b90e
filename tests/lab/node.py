# SPDX-License-Identifier: Apache-2.0
"""A machine of the laboratory: network, mount and UTS namespaces that live exactly as long as their test process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
ENTER = REPO / "build" / "tests" / "enter"

NEW_MACHINE = ("unshare", "--net", "--mount", "--uts", "--propagation", "private")

# Whole trees are covered by tmpfs, so that no mount point has to be created on the machine itself. The cgroup tree is
# carried over the fresh sysfs, which shows the new network namespace's devices but has no cgroup mounts of its own.
HOLDER = """
set -e
hostname "$1"
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=755 lib /var/lib
mkdir -p /run/netns /run/bypath /run/lock /run/lab/cgroup /var/lib/cni /var/lib/bypath-test
if mountpoint -q /sys/fs/cgroup; then mount --rbind /sys/fs/cgroup /run/lab/cgroup; fi
mount -t sysfs sysfs /sys
if mountpoint -q /run/lab/cgroup
then mount --rbind /run/lab/cgroup /sys/fs/cgroup; umount -l /run/lab/cgroup
else mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs bypath /run/bypath
ip link set lo up
cd /proc/sys/net
echo 1 > ipv4/ip_forward
echo 1 > ipv6/conf/all/forwarding
for scope in all default
do echo 0 > ipv4/conf/$scope/rp_filter; echo 0 > ipv6/conf/$scope/accept_dad; echo 0 > ipv6/conf/$scope/accept_ra
done
echo ready
exec sleep infinity
"""


class CommandFailed(Exception):
    """A command inside a node ended with a status other than 0; the message holds all that it printed."""


def words(argv: Sequence[str] | str) -> list[str]:
    """A shell line or an argument vector as argument vector."""
    return ["sh", "-ec", argv] if isinstance(argv, str) else [str(word) for word in argv]


def tied(*where: str) -> list[str]:
    """What goes before a command, so that the kernel kills it when this process dies; `where`: options of enter.c."""
    if not ENTER.exists():
        subprocess.run(["make", "-s", str(ENTER.relative_to(REPO))], cwd=REPO, check=True)
    return [str(ENTER), *where, str(os.getpid())]


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """This process's environment with the superuser's directories in PATH, and `extra` over it."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin", **(extra or {})}


class Node:
    """One machine; make it with `Node.create(name)`, or plugged into a network with `Fabric.add_node`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.baseline: frozenset[str] = frozenset()
        """What observe.py told when the node was ready: none of it counts as residue."""
        self._children: list[subprocess.Popen[str]] = []
        self._holder = subprocess.Popen(
            [*tied(), *NEW_MACHINE, "sh", "-c", HOLDER, "sh", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(None),
        )
        assert self._holder.stdout and self._holder.stderr
        if self._holder.stdout.readline() != "ready\n":
            complaint = self._holder.stderr.read()
            self.close()
            raise CommandFailed(f"node {name} could not be made: {complaint}")

    @classmethod
    @contextmanager
    def create(cls, name: str) -> Iterator[Node]:
        """A node without any device but lo; forwarding is on, as on a node that an operator prepared."""
        node = cls(name)
        try:
            yield node
        finally:
            node.close()

    @property
    def pid(self) -> int:
        """The process that holds the node's namespaces open."""
        return self._holder.pid

    def close(self) -> None:
        """Ends every process that `popen` started and gives the namespaces back; may be repeated."""
        for child in [*reversed(self._children), self._holder]:
            if child.poll() is None:
                child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    stream.close()
        self._children.clear()

    def _entered(self, argv: Sequence[str] | str, pod: str | None = None) -> list[str]:
        # Not `ip netns exec` for a pod: that mounts a fresh /sys over the node's and so hides its bpffs.
        inside = ["-n", f"/run/netns/{pod}"] if pod else []
        return [*tied("-m", str(self.pid), *inside), *words(argv)]

    def run(
        self,
        argv: Sequence[str] | str,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        pod: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command (or shell line) inside the node to its end, both streams captured as text.

        `pod`: in the network namespace of that name. `env` is added to this process's environment. Raises CommandFailed
        unless `check` is off, TimeoutExpired.
        """
        done = subprocess.run(
            self._entered(argv, pod),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            env=environment(env),
            timeout=timeout,
            cwd="/",
        )
        if check and done.returncode:
            ended = "" if self._holder.poll() is None else f" (the node itself ended: {self._holder.returncode})"
            raise CommandFailed(f"{self.name}: {argv} -> {done.returncode}{ended}\n{done.stdout}{done.stderr}")
        return done

    def popen(self, argv: Sequence[str] | str, pod: str | None = None, **options: Any) -> subprocess.Popen[str]:
        """Starts a command inside the node; it is killed with the node at the latest. `options` are Popen's."""
        options = {"stdin": subprocess.DEVNULL, "env": environment(None), "cwd": "/", **options}
        child: subprocess.Popen[str] = subprocess.Popen(self._entered(argv, pod), text=True, **options)
        self._children.append(child)
        return child

    def stop(self, child: subprocess.Popen[str], sig: int = signal.SIGKILL) -> int:
        """Ends one process that `popen` started; returns its status."""
        if child.poll() is None:
            child.send_signal(sig)
        return child.wait(timeout=30)

    def sysctl(self, key: str, value: str | int | None = None) -> str:
        """Reads (or writes, then reads) a sysctl of the node's network namespace; dots or slashes separate."""
        path = Path("/proc/sys") / (key if "/" in key else key.replace(".", "/"))
        if value is not None:
            self.run(["sh", "-c", 'echo "$1" > "$2"', "sh", str(value), str(path)])
        return self.run(["cat", str(path)]).stdout.strip()

    def add_pod_netns(self, name: str) -> str:
        """A network namespace as a runtime makes it for a pod (lo up); the path is valid inside the node."""
        self.run(["ip", "netns", "add", name])
        self.pod_run(name, ["ip", "link", "set", "lo", "up"])
        return f"/run/netns/{name}"

    def del_pod_netns(self, name: str) -> None:
        self.run(["ip", "netns", "del", name])

    def pod_run(self, name: str, argv: Sequence[str] | str, **options: Any) -> subprocess.CompletedProcess[str]:
        """As `run`, in the network namespace that `add_pod_netns` made."""
        return self.run(argv, pod=name, **options)

    def pod_popen(self, name: str, argv: Sequence[str] | str, **options: Any) -> subprocess.Popen[str]:
        """As `popen`, in the network namespace that `add_pod_netns` made."""
        return self.popen(argv, pod=name, **options)
