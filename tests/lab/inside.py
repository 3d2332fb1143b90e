# SPDX-License-Identifier: Apache-2.0
"""Python of the project that runs in a node's network namespace, in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from cni.net.netns import NetNs
from tests.lab.node import Node

T = TypeVar("T")


def inside(node: Node, action: Callable[..., T], *arguments: object) -> T:
    """Calls `action` with this thread in the node's network namespace; sockets that it returns stay there."""
    descriptor = os.open(f"/proc/{node.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return NetNs("", descriptor).inside(action, *arguments)
    finally:
        os.close(descriptor)
