# SPDX-License-Identifier: Apache-2.0
"""Pods of containerd with annotations for bypath-sockmap: an app and its sidecar, and two pods of a node."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest
from sockmap import layout

from tests.lab.node import Node
from tests.lab.residue import difference, remember
from tests.plugins.sockmap_lab import PINS, raw
from tests.runtime.chains import HOST_GW_SOCKMAP
from tests.runtime.containerd import Containerd
from tests.runtime.cri import Cri, Pod

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("containerd: host-gw + sockmap")]
ON, SIDECAR_ONLY = {"bypath.dev/sockmap": "on"}, {"bypath.dev/sockmap": "sidecar"}
PORT = 8080
BYTES = 300_000


@pytest.fixture(scope="module")
def runtime() -> Iterator[Containerd]:
    with Node.create("node") as node:
        remember(node)
        with Containerd.create(node, HOST_GW_SOCKMAP) as made:
            yield made


@pytest.fixture
def cri(runtime: Containerd) -> Iterator[Cri]:
    yield runtime.cri
    assert difference(runtime.node) == []
    assert runtime.leftovers() == []


class Pods:
    """Pods until the end of `with`."""

    def __init__(self, cri: Cri) -> None:
        self._cri = cri
        self._stack = ExitStack()

    def __enter__(self) -> Pods:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, name: str, annotations: Mapping[str, str]) -> Pod:
        pod = self._cri.run_pod(name, annotations)
        self._stack.callback(pod.remove)
        return pod


def serve(pod: Pod, container: str = "") -> None:
    pod.exec(
        f"mkdir -p /tmp/www; head -c {BYTES} /dev/urandom > /tmp/www/file; cat /tmp/www/file > /tmp/copy;"
        f" busybox httpd -p {PORT} -h /tmp/www",
        container=container,
    )


def fetched_digest(pod: Pod, address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return pod.exec(f"curl -sS -m 20 http://{host}:{PORT}/file | busybox sha256sum").split()[0]


def digest(pod: Pod, container: str = "") -> str:
    return pod.exec("busybox sha256sum /tmp/copy", container=container).split()[0]


def redirected(node: Node) -> list[int]:
    """Bytes that the sockets of each pod with a policy sent past TCP, in the order of the namespaces' cookies."""
    shown = json.loads(node.run(f"bpftool -j map dump pinned {PINS}/counters").stdout)
    of_pods = {raw(each["key"]): b"".join(raw(cpu["value"]) for cpu in each["values"]) for each in shown}
    values = [value for _, value in sorted(of_pods.items(), key=lambda item: layout.U64.unpack(item[0]))]
    return [layout.sum_counters(value, layout.COUNTERS.size)["redirected_bytes"] for value in values]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_app_and_its_sidecar_container_talk_past_tcp(cri: Cri, runtime: Containerd, address: str) -> None:
    with Pods(cri) as pods:
        pod = pods.run("app", SIDECAR_ONLY)
        sidecar = pod.start_container("sidecar")
        serve(pod, sidecar)
        assert fetched_digest(pod, address) == digest(pod, sidecar)
        (count,) = redirected(runtime.node)
        assert count >= BYTES


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_two_pods_of_a_node_talk_past_tcp(cri: Cri, runtime: Containerd, family: int) -> None:
    with Pods(cri) as pods:
        client, server = pods.run("client", ON), pods.run("server", ON)
        serve(server)
        assert fetched_digest(client, server.ips[family]) == digest(server)
        counts = sorted(redirected(runtime.node))
        assert 0 < counts[0] < 1000 and counts[1] >= BYTES, "a request one way, a file the other"


def test_pods_that_did_not_both_ask_for_it_talk_by_tcp(cri: Cri, runtime: Containerd) -> None:
    with Pods(cri) as pods:
        plain, sidecar_only, accelerated = pods.run("a", {}), pods.run("b", SIDECAR_ONLY), pods.run("c", ON)
        for server in sidecar_only, accelerated:
            serve(server)
            for client in plain, sidecar_only, accelerated:
                if client is not server:
                    assert fetched_digest(client, server.ip) == digest(server)
        assert redirected(runtime.node) == [0, 0]


def test_a_limited_pod_is_accelerated_within_but_not_between_pods(cri: Cri, runtime: Containerd) -> None:
    with Pods(cri) as pods:
        limited = pods.run("limited", {**ON, "kubernetes.io/egress-bandwidth": "900M"})
        other = pods.run("other", ON)
        serve(limited)
        assert fetched_digest(other, limited.ip) == digest(limited)
        assert redirected(runtime.node) == [0, 0]
        assert fetched_digest(limited, "127.0.0.1") == digest(limited)
        assert max(redirected(runtime.node)) >= BYTES


def test_a_mistaken_annotation_keeps_the_pod_from_starting_and_is_named(cri: Cri) -> None:
    with Pods(cri) as pods, pytest.raises(Exception, match=r"annotation bypath.dev/sockmap: 'sidcar' is not a scope"):
        pods.run("mistaken", {"bypath.dev/sockmap": "sidcar"})
    assert cri.sandboxes() == []
