# SPDX-License-Identifier: Apache-2.0
"""A client of the Container Runtime Interface: pods as kubelet makes them, each with one container of tools."""

from __future__ import annotations

import importlib
import json
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc  # type: ignore[import-untyped]
from grpc_tools import protoc  # type: ignore[import-untyped]

from tests.lab.executable import REPO
from tests.lab.node import words
from tests.runtime.images import TOOLS

PROTO = Path(__file__).with_name("cri.proto")
CGROUP_PARENT = f"/bypath-test-{os.getpid()}"
"""cgroups are the machine's: whoever tests beside us must not meet ours."""
CALL_SECONDS = 120
"""One call, a whole RunPodSandbox included, on an emulated machine."""


def messages() -> ModuleType:
    """The classes of cri.proto, compiled into build/ when that has not been done since the file changed."""
    target = REPO / "build" / "cri"
    made = target / "cri_pb2.py"
    if not made.exists() or made.stat().st_mtime < PROTO.stat().st_mtime:
        target.mkdir(parents=True, exist_ok=True)
        if protoc.main(["protoc", f"-I{PROTO.parent}", f"--python_out={target}", str(PROTO)]):
            raise RuntimeError("cri.proto does not compile")
    if str(target) not in sys.path:
        sys.path.append(str(target))
    return importlib.import_module("cri_pb2")


class ExecFailed(Exception):
    """A command in a container ended with a status other than 0; the message holds all that it printed."""


class Cri:
    """One runtime behind the unix socket `socket`, a path that this process can open."""

    def __init__(self, socket: str) -> None:
        self.pb: Any = messages()
        self._socket = socket
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._methods = self.pb.DESCRIPTOR.services_by_name["RuntimeService"].methods_by_name

    def reconnect(self) -> None:
        """For a runtime that was started again: the old channel waits ever longer before it tries again."""
        self._channel.close()
        self._channel = grpc.insecure_channel(f"unix:{self._socket}")

    def close(self) -> None:
        self._channel.close()

    def call(self, method: str, timeout_s: float = CALL_SECONDS, **fields: Any) -> Any:
        """Calls one method with a request of these fields; returns the response; raises grpc.RpcError."""
        described = self._methods[method]
        request = getattr(self.pb, described.input_type.name)(**fields)
        invoke = self._channel.unary_unary(
            f"/{described.containing_service.full_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(self.pb, described.output_type.name).FromString,
        )
        return invoke(request, timeout=timeout_s)

    def not_ready(self) -> list[str]:
        """The conditions (RuntimeReady, NetworkReady) that are false, with their reasons."""
        conditions = self.call("Status").status.conditions
        return [f"{one.type}: {one.reason} {one.message}" for one in conditions if not one.status]

    def sandboxes(self) -> list[str]:
        """The ids of all sandboxes, whatever their state."""
        return [item.id for item in self.call("ListPodSandbox").items]

    def run_pod(self, name: str, annotations: Mapping[str, str] | None = None) -> Pod:
        """A pod with a running container of the tools image; a failure leaves no sandbox behind."""
        config = {
            "metadata": {"name": name, "uid": str(uuid.uuid4()), "namespace": "default", "attempt": 0},
            "hostname": name,
            "annotations": dict(annotations or {}),
            "linux": {"cgroup_parent": CGROUP_PARENT},
        }
        pod = Pod(self, self.call("RunPodSandbox", config=config).pod_sandbox_id)
        try:
            pod.start(config)
        except BaseException:
            pod.remove()
            raise
        return pod


class Pod:
    """A sandbox that RunPodSandbox made; it lives until `remove`."""

    def __init__(self, cri: Cri, sandbox: str) -> None:
        self._cri = cri
        self.id = sandbox
        self.container = ""
        self._config: Mapping[str, Any] = {}
        self.ips: list[str] = []
        """In the order of the CNI result."""

    @property
    def ip(self) -> str:
        return self.ips[0]

    def start(self, config: Mapping[str, Any]) -> None:
        """Starts the container in the sandbox, which was made of `config`, and learns the pod's addresses."""
        self._config = config
        self.container = self.start_container("tools")
        network = self.status().status.network
        self.ips = [network.ip, *(address.ip for address in network.additional_ips)]

    def start_container(self, name: str) -> str:
        """The id of one more container of the tools image in the sandbox, as a sidecar is."""
        container = {"metadata": {"name": name, "attempt": 0}, "image": {"image": TOOLS}}
        made = self._cri.call(
            "CreateContainer", pod_sandbox_id=self.id, config=container, sandbox_config=self._config
        ).container_id
        self._cri.call("StartContainer", container_id=made)
        return str(made)

    def status(self) -> Any:
        return self._cri.call("PodSandboxStatus", pod_sandbox_id=self.id, verbose=True)

    @property
    def netns(self) -> str:
        """The path that the plugins were given as CNI_NETNS, valid in the runtime's mount namespace."""
        spec = json.loads(self.status().info["info"])["runtimeSpec"]
        return next(str(ns["path"]) for ns in spec["linux"]["namespaces"] if ns["type"] == "network")

    def exec(
        self, argv: Sequence[str] | str, check: bool = True, timeout_s: int = CALL_SECONDS, container: str = ""
    ) -> str:
        """Runs a command (or shell line) in a container, the first one without an id; returns its stdout.

        Raises ExecFailed unless told not to.
        """
        done = self._cri.call(
            "ExecSync", timeout_s + 10, container_id=container or self.container, cmd=words(argv), timeout=timeout_s
        )
        if check and done.exit_code:
            printed = (done.stdout + done.stderr).decode()
            raise ExecFailed(f"{argv} -> {done.exit_code}\n{printed}")
        return str(done.stdout.decode())

    def stop(self) -> None:
        """Ends the processes and calls the chain's DEL; may be repeated."""
        self._cri.call("StopPodSandbox", pod_sandbox_id=self.id)

    def remove(self) -> None:
        """`stop`, and the runtime forgets the pod."""
        self.stop()
        self._cri.call("RemovePodSandbox", pod_sandbox_id=self.id)
