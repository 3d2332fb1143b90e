# SPDX-License-Identifier: Apache-2.0
"""cni.net's rtnetlink encoder, read back by pyroute2's decoder, and its socket against the running kernel."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.ndmsg import ndmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.tcmsg import tcmsg  # type: ignore[import-untyped]

from cni.net import address, link, neighbour, netlink, qdisc, route
from cni.net.netlink import Message, NetlinkError, Socket

V4, V6 = bytes((10, 244, 1, 5)), bytes.fromhex("fd000010" + "0" * 23 + "5")
GATEWAY = bytes((169, 254, 1, 1))
MAC_A, MAC_B = bytes.fromhex("0a00646ed487"), bytes.fromhex("0a01646ed487")
EXCLUSIVE = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL


def decoded(kind: Any, message: Message) -> Any:
    """The message as pyroute2 understands it."""
    header = struct.pack("=IHHII", 16 + len(message.body), message.kind, message.flags, 1, 0)
    found = kind(header + message.body)
    found.decode()
    return found


def test_a_veth_is_asked_for_with_both_ends_in_one_message() -> None:
    asked = link.new_veth("bp0", MAC_A, 1400, "eth0", MAC_B, 7)
    found = decoded(ifinfmsg, asked)
    assert (asked.kind, asked.flags, found["flags"], found["change"]) == (link.RTM_NEWLINK, EXCLUSIVE, 1, 1)
    assert found.get_attr("IFLA_IFNAME") == "bp0" and found.get_attr("IFLA_MTU") == 1400
    assert found.get_attr("IFLA_ADDRESS") == link.mac_text(MAC_A) and found.get_attr("IFLA_NET_NS_FD") is None
    info = found.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_MTU")) == ("eth0", 1400)
    assert (peer.get_attr("IFLA_ADDRESS"), peer.get_attr("IFLA_NET_NS_FD")) == (link.mac_text(MAC_B), 7)


@pytest.mark.parametrize(("mode", "flags", "netns"), [(0, 0, 7), (1, 1, 7), (2, 2, None)])
def test_an_ipvlan_is_asked_for_with_mode_flags_and_namespace(mode: int, flags: int, netns: int | None) -> None:
    asked = link.new_ipvlan("eth0", 3, mode, flags, 1500, netns)
    found = decoded(ifinfmsg, asked)
    info = found.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "ipvlan" and found.get_attr("IFLA_LINK") == 3
    assert found.get_attr("IFLA_NET_NS_FD") == netns
    # pyroute2 knows no flags: struct nlattr by hand, IFLA_IPVLAN_MODE 1 and IFLA_IPVLAN_FLAGS 2, a u16 each.
    assert struct.pack("=HHHxxHHHxx", 6, 1, mode, 6, 2, flags) in asked.body
    read = link.Link(asked.body)
    assert (link.ipvlan_mode_of(read), link.ipvlan_flags_of(read)) == (mode, flags)


def test_an_alias_and_an_up_flag_are_set_by_name() -> None:
    found = decoded(ifinfmsg, link.set_alias("bp0", "bypath/pods/c1/eth0"))
    assert (found.get_attr("IFLA_IFNAME"), found.get_attr("IFLA_IFALIAS")) == ("bp0", "bypath/pods/c1/eth0")
    found = decoded(ifinfmsg, link.set_up("eth0"))
    assert (found["flags"], found["change"], found["index"]) == (1, 1, 0)


@pytest.mark.parametrize(("packed", "length", "text"), [(V4, 32, "10.244.1.5"), (V6, 128, "fd00:10::5")])
def test_an_address_goes_out_whole_and_without_duplicate_detection(packed: bytes, length: int, text: str) -> None:
    asked = address.new(5, packed, length)
    found = decoded(ifaddrmsg, asked)
    assert (asked.flags, found["index"], found["prefixlen"], found["flags"]) == (EXCLUSIVE, 5, length, 2)
    assert found.get_attr("IFA_LOCAL") == found.get_attr("IFA_ADDRESS") == text


def test_a_route_carries_what_the_result_may_say() -> None:
    options = route.Options(mtu=1400, advmss=1360, priority=7, table=1000, scope=200, source=V4, onlink=True)
    found = decoded(rtmsg, route.new(bytes((10, 0, 0, 0)), 8, 5, GATEWAY, options))
    assert (found["dst_len"], found["proto"], found["scope"], found["type"], found["flags"]) == (8, 0xB7, 200, 1, 4)
    wanted = {
        "RTA_DST": "10.0.0.0",
        "RTA_OIF": 5,
        "RTA_GATEWAY": "169.254.1.1",
        "RTA_PRIORITY": 7,
        "RTA_TABLE": 1000,
        "RTA_PREFSRC": "10.244.1.5",
    }
    assert {name: found.get_attr(name) for name in wanted} == wanted
    metrics = found.get_attr("RTA_METRICS")
    assert (metrics.get_attr("RTAX_MTU"), metrics.get_attr("RTAX_ADVMSS")) == (1400, 1360)


def test_a_plain_route_carries_nothing_else() -> None:
    found = decoded(rtmsg, route.new(bytes(16), 0, 5, bytes.fromhex("fe80" + "0" * 27 + "1")))
    assert [name for name, _ in found["attrs"]] == ["RTA_OIF", "RTA_GATEWAY"]
    assert (found["family"], found["table"], found["scope"]) == (10, route.TABLE_MAIN, 0)


def test_a_route_is_exclusive_unless_it_shall_replace() -> None:
    assert route.new(bytes(4), 0, 5).flags == EXCLUSIVE
    assert route.new(bytes(4), 0, 5, replace=True).flags == netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE


def test_table_0_of_a_result_is_left_for_the_kernel_to_read_as_main() -> None:
    found = decoded(rtmsg, route.new(bytes(4), 0, 5, b"", route.Options(table=0)))
    assert found["table"] == 0 and found.get_attr("RTA_TABLE") is None


def test_a_neighbour_is_permanent() -> None:
    found = decoded(ndmsg, neighbour.new_permanent(5, GATEWAY, MAC_A))
    assert (found["ifindex"], found["state"], found["family"]) == (5, 0x80, 2)
    assert (found.get_attr("NDA_DST"), found.get_attr("NDA_LLADDR")) == ("169.254.1.1", link.mac_text(MAC_A))


def test_an_fq_goes_to_the_root_with_its_options() -> None:
    asked = qdisc.set_root_fq(5, "eth0", 0x10000, {"plimit": 20000, "flow_plimit": 1000})
    found = decoded(tcmsg, asked)
    assert (found["index"], found["parent"], found["handle"]) == (5, qdisc.TC_H_ROOT, 0x10000)
    assert found.get_attr("TCA_KIND") == "fq"
    # pyroute2 knows no fq: TCA_FQ_PLIMIT 1 and TCA_FQ_FLOW_PLIMIT 2 of linux/pkt_sched.h, a u32 each.
    assert asked.body.endswith(struct.pack("=HHIHHI", 8, 1, 20000, 8, 2, 1000))


def test_an_mq_goes_to_the_root_and_an_fq_to_one_of_its_queues() -> None:
    found = decoded(tcmsg, qdisc.put(5, "eth0", qdisc.Qdisc(0x10000, qdisc.TC_H_ROOT, "mq", b"")))
    assert (found["parent"], found["handle"], found.get_attr("TCA_KIND")) == (qdisc.TC_H_ROOT, 0x10000, "mq")
    found = decoded(tcmsg, qdisc.put(5, "eth0", qdisc.Qdisc(0, 0x10002, "fq", b"")))
    assert (found["parent"], found["handle"], found.get_attr("TCA_KIND")) == (0x10002, 0, "fq")


def test_an_ifb_has_its_address_and_queues_from_its_first_moment_on() -> None:
    asked = link.new_ifb("ifb7", MAC_A, 4)
    found = decoded(ifinfmsg, asked)
    assert (asked.flags, found["flags"], found.get_attr("IFLA_IFNAME")) == (EXCLUSIVE, 0, "ifb7")
    assert found.get_attr("IFLA_ADDRESS") == link.mac_text(MAC_A)
    assert (found.get_attr("IFLA_NUM_TX_QUEUES"), found.get_attr("IFLA_NUM_RX_QUEUES")) == (4, 4)
    assert found.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "ifb"
    read = link.Link(asked.body)
    assert (read.tx_queues, read.kind, read.mac) == (4, "ifb", MAC_A)


@pytest.mark.parametrize("payload", [b"", b"1", b"12", b"123", b"1234", b"12345"])
def test_attributes_are_padded_and_read_back(payload: bytes) -> None:
    data = netlink.attr(1, payload) + netlink.attr_nest(2, netlink.attr_u32(3, 4))
    assert len(netlink.attr(1, payload)) % 4 == 0
    assert list(netlink.attrs(data)) == [(1, payload), (2, netlink.attr_u32(3, 4))]


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x00\x00\x01\x00", b"\x03\x00\x01\x00" * 2])
def test_attributes_that_make_no_sense_end_the_walk(data: bytes) -> None:
    assert list(netlink.attrs(data)) == []


def test_a_device_is_read_from_the_kernel_by_name_number_and_in_the_list() -> None:
    socket = Socket()
    found = link.get(socket, "lo")
    assert (found.name, found.is_loopback, found.kind, found.mac) == ("lo", True, "", bytes(6))
    assert link.get_by_index(socket, found.index).name == "lo"
    assert "lo" in [each.name for each in link.list_all(socket)]
    assert link.find(socket, "no-such-device") is None


def test_the_first_refusal_of_a_batch_is_raised_in_the_operators_words_and_the_socket_stays_usable() -> None:
    socket = Socket()
    with pytest.raises(NetlinkError, match="find device gone1: No such device") as failure:
        socket.ask(link.ask_for("lo"), link.ask_for("gone1"), link.ask_for("gone2"), link.ask_for("lo"))
    assert failure.value.errno == errno.ENODEV
    names = [link.Link(reply).name for reply in socket.ask(link.ask_for("lo"), link.ask_for("lo"))]
    assert names == ["lo", "lo"]
    with pytest.raises(NetlinkError):
        socket.dump(Message(link.RTM_GETLINK, 0, b"\xff" * 16, "list nonsense"))
    assert link.find(socket, "lo") is not None


def test_what_the_kernel_adds_to_an_error_is_passed_on() -> None:
    with pytest.raises(NetlinkError, match=r"^.Errno 22. list nonsense: Invalid argument \(.*header.*\)$"):
        Socket().dump(Message(22, 0, struct.pack("=BBBBI", 2, 99, 0, 0, 0), "list nonsense"))
