# SPDX-License-Identifier: Apache-2.0
"""One containerd per node, in a PID namespace of its own: when that ends, every shim and container ends with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from subprocess import DEVNULL, PIPE, STDOUT, CompletedProcess
from typing import Any

import grpc  # type: ignore[import-untyped]

from tests.lab.executable import search_path
from tests.lab.node import Node, words
from tests.runtime import images
from tests.runtime.cri import CGROUP_PARENT, Cri

HOME = "/var/lib/bypath-test/containerd"
SOCKET = "/run/containerd/containerd.sock"
START_SECONDS = 180
"""An emulated machine with two busy processors needs most of a minute."""
LOG_LINES = 25
"""Of containerd's log, shown with a test's failure."""

# Ignoring SIGCHLD makes the kernel reap the shims that lose their parent to this process.
INIT = "echo ready; exec env --ignore-signal=CHLD sleep infinity"

CONFIG = """
version = 2
root = "{home}/root"
state = "/run/containerd"
imports = []
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{home}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{home}/bin"
    conf_dir = "{home}/net.d"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


class Containerd:
    """A runtime with one conflist; make it with `Containerd.create(node, conflist)`."""

    def __init__(self, node: Node, conflist: dict[str, Any]) -> None:
        self.node = node
        self._init = node.popen(
            ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc", "sh", "-c", INIT],
            stdout=PIPE,
        )
        assert self._init.stdout
        self._init.stdout.readline()
        children = f"/proc/{self._init.pid}/task/{self._init.pid}/children"
        with open(children) as listed:
            self.pid = int(listed.read())
            """The first process of the runtime's PID namespace, as this process sees it."""
        self.cri = Cri(f"/proc/{self.pid}/root{SOCKET}")
        self._prepare(conflist)

    @classmethod
    @contextmanager
    def create(cls, node: Node, conflist: dict[str, Any]) -> Iterator[Containerd]:
        """A running containerd that knows the test images and whose network is ready."""
        made = cls(node, conflist)
        try:
            made.start()
            for archive in images.build_all():
                made.import_image(str(archive))
            yield made
        except Exception as error:
            error.add_note("\n".join(made.log().splitlines()[-LOG_LINES:]))
            raise
        finally:
            made.close()

    def run(self, argv: Sequence[str] | str, **options: Any) -> CompletedProcess[str]:
        """As Node.run, in the runtime's own mount and PID namespaces, where the pods' netns paths are valid."""
        return self.node.run(self._entered(argv), **options)

    def _entered(self, argv: Sequence[str] | str) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-u", "--", *words(argv)]

    def _write(self, path: str, text: str) -> None:
        self.run(["sh", "-c", 'cat > "$1"', "sh", path], input=text)

    def _prepare(self, conflist: dict[str, Any]) -> None:
        self.run(f"mkdir -p {HOME}/root {HOME}/bin {HOME}/net.d /run/containerd")
        # containerd takes one directory of plugins only; those found first win, as in CNI_PATH.
        for directory in reversed(search_path(self.node)):
            self.run(
                f"[ ! -d {directory} ] || find {directory} -maxdepth 1 -type f -perm -1"
                f" -exec ln -sf '{{}}' {HOME}/bin/ ';'"
            )
        self._write(f"{HOME}/net.d/10-test.conflist", json.dumps(conflist))
        self.snapshotter = self._snapshotter()
        self._write(
            f"{HOME}/config.toml",
            CONFIG.format(home=HOME, socket=SOCKET, pause=images.PAUSE, snapshotter=self.snapshotter),
        )

    def _snapshotter(self) -> str:
        """overlayfs where the kernel has it; copying works everywhere."""
        attempt = (
            f"d={HOME}/try; mkdir -p $d/l $d/u $d/w $d/m; mount -t overlay -o lowerdir=$d/l,upperdir=$d/u,"
            "workdir=$d/w overlay $d/m; umount $d/m"
        )
        return "native" if self.run(attempt, check=False).returncode else "overlayfs"

    def import_image(self, archive: str) -> None:
        """Loads a tar of this machine where CRI looks for images."""
        ctr = ["ctr", "-a", SOCKET, "-n", "k8s.io", "image", "import", "--snapshotter", self.snapshotter]
        self.run([*ctr, archive], timeout=START_SECONDS)

    def start(self) -> None:
        """Starts containerd (again) and waits until it and its network are ready."""
        line = f"echo $$ > {HOME}/pid; exec containerd -c {HOME}/config.toml -l info > {HOME}/log 2>&1"
        self._daemon = self.node.popen(self._entered(line), stdout=DEVNULL, stderr=STDOUT)
        self.poll(self._ready, START_SECONDS, "containerd is not ready")

    def _ready(self) -> bool:
        if self._daemon.poll() is not None:
            raise RuntimeError(f"containerd ended: {self.log()}")
        try:
            return not self.cri.not_ready()
        except grpc.RpcError:  # nobody listens yet
            self.cri.reconnect()
            return False

    def poll(self, done: Callable[[], bool], seconds: float, complaint: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{complaint} after {seconds} s: {self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        return self.run(["cat", f"{HOME}/log"], check=False).stdout

    def kill(self) -> None:
        """SIGKILL for containerd alone: shims and containers live on."""
        self.run(f"kill -KILL $(cat {HOME}/pid)")
        self._daemon.wait(timeout=30)

    def leftovers(self) -> list[str]:
        """What containerd itself still holds when every pod was removed: sandboxes, shims, mounted namespaces."""
        listed = self.run(["ps", "-eo", "args"]).stdout.splitlines()
        shims = [line for line in listed if "containerd-shim" in line]
        return self.cri.sandboxes() + shims + self.run("ls /run/netns").stdout.split()

    def close(self) -> None:
        """Ends the daemon and all that it started, pods included; may be repeated."""
        self.cri.close()
        self.node.stop(self._init)
        self.node.run(
            f"find /sys/fs/cgroup/*{CGROUP_PARENT} /sys/fs/cgroup{CGROUP_PARENT} -depth -type d"
            " -exec rmdir {} + 2>/dev/null || true"
        )
