# SPDX-License-Identifier: Apache-2.0
"""What bypath-bandwidth-edt says when the kernel has no ifb, and which devices' ingress it takes there."""

from __future__ import annotations

import errno

import pytest
from bandwidth_edt import ifb

from cni.errors import KERNEL_LACKS, CniError
from cni.net import link
from cni.net.netlink import Message, NetlinkError, Socket


class Refusing(Socket):
    """A kernel that answers every request with the same errno."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def ask(self, *messages: Message) -> list[bytes]:
        raise NetlinkError(self._number, f"{messages[0].what}: refused")


def test_a_kernel_without_ifb_is_named_with_the_command_that_loads_it() -> None:
    with pytest.raises(CniError) as caught:
        ifb._create(Refusing(errno.EOPNOTSUPP))
    assert caught.value.code == KERNEL_LACKS and "modprobe ifb numifbs=0" in caught.value.msg
    with pytest.raises(NetlinkError):
        ifb._create(Refusing(errno.EBUSY))


def test_only_an_ipvlan_of_a_nic_of_the_node_is_led_there() -> None:
    pod_link = link.get(Socket(), "lo")
    assert ifb.nic_of(pod_link) is None, "it has no NIC below it"
    pod_link.kind, pod_link.parent, pod_link.mac = "ipvlan", pod_link.index, bytes(6)
    found = ifb.nic_of(pod_link)
    assert found and found.name == "lo"
    pod_link.mac = bytes.fromhex("0a0000000001")
    assert ifb.nic_of(pod_link) is None, "the number is that of another device here"
    pod_link.mac, pod_link.kind = bytes(6), "macvlan"
    assert ifb.nic_of(pod_link) is None
