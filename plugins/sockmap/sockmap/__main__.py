# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from cni.plugin import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plugin import Plugin


def make() -> Plugin:
    from sockmap.plugin import Sockmap

    return Sockmap()


run(make)
