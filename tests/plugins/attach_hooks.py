# SPDX-License-Identifier: Apache-2.0
"""Run inside a node: attaches or detaches programs on one device, in the order of the arguments, by bpf.attach.

attach_hooks.py DEVICE [+|-|=]PLUGIN:PROGRAM:DIRECTION ...

"=" attaches a pinned program as somebody else would: at the end by TCX, or with the priority that tc gives a first one.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), *(str(main.parent.parent) for main in REPO.glob("plugins/*/*/__main__.py"))]

from bandwidth_edt import shaper  # noqa: E402
from snat import node  # noqa: E402

from bpf import command, loader, pins, records  # noqa: E402
from bpf.attach import Hook  # noqa: E402
from cni.net import link, qdisc  # noqa: E402
from cni.net.netlink import Socket  # noqa: E402

FOREIGN = "/sys/fs/bpf/foreign"
PRIORITY_OF_TC = 0xC000


def attach_foreign(socket: Socket, index: int, plugin: str, program: str, direction: str) -> None:
    descriptor = command.obj_get(pins.pin(plugin, program))
    try:
        made = command.link_create_tcx(descriptor, index, direction, 0, 0, 0)
    except OSError:
        qdisc.ensure_clsact(socket, index)
        qdisc.put_filter(socket, index, direction, PRIORITY_OF_TC, descriptor, program)
    else:
        command.obj_pin(made, FOREIGN)


def main() -> None:
    socket = Socket()
    index = link.get(socket, sys.argv[1]).index
    for made in (node.OBJECT, shaper.OBJECT):
        records.open_or_create(made.plugin)
        loader.ensure(made, lambda: None)
    for word in sys.argv[2:]:
        plugin, program, direction = word[1:].split(":")
        if word[0] == "=":
            attach_foreign(socket, index, plugin, program, direction)
            continue
        hook = Hook(plugin, program, index, direction, f"{index}", shared=True)
        if word[0] == "+":
            hook.attach(socket)
            assert hook.fault(socket) == ""
        else:
            hook.detach(socket)
            assert hook.fault(socket) != ""


if __name__ == "__main__":
    main()
