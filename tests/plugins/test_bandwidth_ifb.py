# SPDX-License-Identifier: Apache-2.0
"""Ingress limits of ipvlan pods: kept on the node's one ifb, which is there for them alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.executable import Cni, CniFailure
from tests.lab.fabric import OUTSIDE_IP, OUTSIDE_IP6
from tests.lab.iperf import kept
from tests.lab.residue import difference, remember
from tests.plugins.ifb_lab import EXECUTABLE, IFB, LINKS, MBIT, Place, chain_of, ingress
from tests.plugins.rooms import failure_of

pytestmark = [pytest.mark.feature("edt ingress of ipvlan pods"), pytest.mark.needs("ipvlan", "fq", "ifb")]
LIMIT = 20 * MBIT
SLOW = ingress(LIMIT)
GRO_MAX_BYTES = 65536
MOMENTS = 6
MODES = ["l2", "l3", pytest.param("l3s", marks=pytest.mark.needs("ipvlan l3s"))]


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with Place.create() as made:
        yield made


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    """A node as it was, which every test leaves so."""
    yield shared
    shared.clear()


@pytest.mark.parametrize("server", [OUTSIDE_IP, OUTSIDE_IP6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("mode", MODES)
def test_20_megabits_are_kept_within_5_percent(place: Place, mode: str, server: str) -> None:
    place.use("slow", chain_of(mode), SLOW)
    place.check("slow")
    measured = kept(LIMIT, lambda: place.measure("slow", server))
    assert min(each.retransmits for each in measured) <= 10, measured
    assert place.crossed() > 10 * LIMIT / 8 / GRO_MAX_BYTES, "what came in the ten seconds did not come by the ifb"
    place.check("slow")
    place.remove()
    assert place.leaves_nothing()


def test_two_pods_share_one_ifb_and_what_comes_for_one_without_this_limit_never_crosses_it(place: Place) -> None:
    place.use("free", chain_of("l3"), {"bandwidth": {"egressRate": LIMIT}})
    assert place.ifbs() == [] and not difference_of_hooks(place), "nobody needs it yet"
    for name in "slow", "slower":
        place.use(name, chain_of("l3"), SLOW)
    (ifb,) = place.ifbs()
    assert (ifb["ifname"], ifb["operstate"]) == (IFB, "UNKNOWN") and "UP" in ifb["flags"]
    assert place.node.run(f"ip address show dev {IFB} scope link").stdout.count("inet6") == 0
    before = place.crossed()
    for address in OUTSIDE_IP, f"[{OUTSIDE_IP6}]":
        place.run("free", ["curl", "-sSg", "-m20", "-o/dev/null", f"http://{address}/bytes/1000000"])
    assert place.crossed() == before
    place.run("slow", ["curl", "-sS", "-m20", "-o/dev/null", f"http://{OUTSIDE_IP}/bytes/100000"])
    assert place.crossed() > before
    place.remove("slow")
    place.check("slower")
    assert [each["ifindex"] for each in place.ifbs()] == [ifb["ifindex"]]
    place.remove("slower")
    assert place.ifbs() == [] and not difference_of_hooks(place)
    place.remove("free")
    assert place.leaves_nothing()


def difference_of_hooks(place: Place) -> list[str]:
    """What is on the NIC or pinned for the ifb that was not there."""
    words = ("on eth0", "edt_ifbs", "edt_to_ifb", "edt_pod_in")
    return [fact for fact in difference(place.node) if any(word in fact for word in words)]


@pytest.mark.parametrize("order", ["snat edt", "edt snat"])
def test_an_address_that_snat_translates_back_is_found_in_either_order(place: Place, order: str) -> None:
    place.use("slow", chain_of("l3", order), SLOW)
    before = place.crossed()
    url = f"http://{OUTSIDE_IP}/"
    assert place.run("slow", ["curl", "-sS", "-m20", url]).split()[0] == "192.0.2.11"
    assert place.crossed() >= before + 3, "its answers, which come to the node's address"
    place.run("slow", ["curl", "-sS", "-m60", "-o/dev/null", f"{url}bytes/1000000"])
    place.check("slow")
    place.remove()
    assert place.leaves_nothing()


def test_a_second_add_changes_the_rate_and_one_without_a_limit_takes_the_ifb_away(place: Place) -> None:
    place.use("slow", chain_of("l3"), ingress(2 * MBIT))
    (ifb,) = place.ifbs()
    place.change("slow", SLOW)
    place.check("slow")
    assert place.measure("slow").mean > 4 * MBIT
    assert [each["ifindex"] for each in place.ifbs()] == [ifb["ifindex"]]
    old = failure_of(Cni(place.node, EXECUTABLE).check, place.edt("slow", ingress(MBIT)), "slow", "/run/netns/slow")
    assert "the ingress limit in force is not 1000000 bit/s" in old.msg
    place.change("slow", {"bandwidth": {"egressRate": LIMIT}})
    assert place.ifbs() == []
    place.check("slow")
    place.change("slow", SLOW)
    place.check("slow")
    place.change("slow", None)
    assert place.ifbs() == []
    place.remove()
    assert place.leaves_nothing()


BROKEN = {
    "the node's bypath-ifb is gone": f"ip link del {IFB}",
    "bypath-ifb is down": f"ip link set {IFB} down",
    "bypath-ifb has root qdisc pfifo_fast instead of ours": f"tc qdisc replace dev {IFB} root handle 7: pfifo_fast",
    "eth0 has no edt_to_ifb on its ingress": f"rm -f {LINKS}/edt_to_ifb-*; tc filter del dev eth0 ingress || :",
    "bypath-ifb has no edt_pod_in on its egress": f"rm -f {LINKS}/edt_pod_in-ifb; tc filter del dev {IFB} egress || :",
}


def test_check_names_what_is_missing_and_the_next_add_repairs_it(place: Place) -> None:
    place.use("slow", chain_of("l3"), SLOW)
    for sentence, command in BROKEN.items():
        place.node.run(command)
        assert sentence in failure_of(place.check, "slow").msg
        place.change("slow", SLOW)
        place.check("slow")
        place.run("slow", ["ping", "-c1", "-W10", OUTSIDE_IP])
    place.remove()
    assert place.leaves_nothing()


def test_a_device_of_somebody_else_with_the_name_is_refused_and_stays(place: Place) -> None:
    place.node.run(f"ip link add {IFB} type ifb")
    remember(place.node)
    with pytest.raises(CniFailure) as caught:
        place.use("slow", chain_of("l3"), SLOW)
    assert caught.value.code == 102 and f"{IFB} is a ifb of somebody else" in caught.value.msg
    place.remove("slow")
    assert difference(place.node) == []
    place.node.run(f"ip link del {IFB}")
    remember(place.node)


def test_an_ipvlan_of_a_nic_inside_the_pod_is_refused(place: Place) -> None:
    place.use("slow", chain_of("l3"))
    place.run("slow", "ip link add in0 type dummy; ip link add link in0 name net0 type ipvlan mode l3")
    conf = place.edt("slow", SLOW)
    result = conf["prevResult"]
    inner = {**result, "interfaces": [{**result["interfaces"][0], "name": "net0"}]}
    failure = failure_of(
        Cni(place.node, EXECUTABLE).add, {**conf, "prevResult": inner}, "slow", "/run/netns/slow", "net0"
    )
    assert failure.code == 2 and "net0 is a ipvlan without an end on the host" in failure.msg
    place.remove()
    assert place.leaves_nothing()


def test_each_nic_has_the_hook_as_long_as_a_limited_pod_is_on_it(place: Place) -> None:
    place.fabric.plug(place.node, "192.0.2.51/24", "eth1")

    def hooked() -> set[str]:
        facts = " ".join(difference(place.node))
        return {nic for nic in ("eth0", "eth1") if f"on {nic} ingress" in facts}

    place.use("first", chain_of("l3"), SLOW)
    assert hooked() == {"eth0"}
    place.use("second", chain_of("l2", master="eth1"), SLOW)
    assert hooked() == {"eth0", "eth1"} and len(place.ifbs()) == 1
    place.remove("first")
    assert hooked() == {"eth1"} and len(place.ifbs()) == 1
    before = place.crossed()
    place.run("second", ["ping", "-c3", "-i0.2", "-W10", OUTSIDE_IP])
    assert place.crossed() >= before + 3
    place.node.run("ip link del eth1")
    place.remove("second")
    assert place.ifbs() == []
    # The NIC took what was on it with it; what is left of ours would be an entry, a pin or a file.
    assert [fact for fact in difference(place.node) if fact.startswith("new: ")] == []
    remember(place.node)


def test_gc_takes_the_ifb_with_the_last_pod_whose_del_never_came(place: Place) -> None:
    place.use("slow", chain_of("l3"), SLOW)
    place.node.del_pod_netns("slow")
    conf = place.edt("slow")
    Cni(place.node, EXECUTABLE).gc(conf, valid=[("slow", "eth0")])
    assert len(place.ifbs()) == 1
    Cni(place.node, EXECUTABLE).gc(conf, valid=[])
    assert place.ifbs() == [] and not difference_of_hooks(place)
    place.node.add_pod_netns("slow")
    place.remove()
    assert place.leaves_nothing()


def test_whatever_moment_it_is_killed_at_the_next_del_gc_or_add_puts_right(place: Place) -> None:
    place.use("slow", chain_of("l3"))
    place.change("slow", SLOW)
    begun = time.monotonic()
    place.change("slow", SLOW)
    whole_seconds = time.monotonic() - begun
    place.change("slow", None)
    shaper = Cni(place.node, EXECUTABLE)
    for step in range(1, MOMENTS + 1):
        moment = whole_seconds * step / MOMENTS
        place.killed("ADD", "slow", SLOW, moment)
        if step % 3 == 0:
            place.change("slow", SLOW)
            place.check("slow")
        if step % 3 == 1:
            shaper.gc(place.edt("slow"), valid=[])
        else:
            shaper.delete(place.edt("slow"), "slow", "/run/netns/slow")
        assert place.ifbs() == [] and not difference_of_hooks(place), f"ADD killed after {moment} s"
        place.change("slow", SLOW)
        place.killed("DEL", "slow", None, moment)
        shaper.gc(place.edt("slow"), valid=[])
        assert place.ifbs() == [] and not difference_of_hooks(place), f"DEL killed after {moment} s"
        place.change("slow", None)
    place.remove()
    assert place.leaves_nothing()
