# SPDX-License-Identifier: Apache-2.0
"""The figures as docs/benchmarks/sockmap.md and its plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench import chart
from bench.samples import Results
from bench.sockmap import plan, verdicts
from bench.targets import number, table, targets

REQUEST_PLOT, STREAM_PLOT = "sockmap-requests.svg", "sockmap-streams.svg"
BULK_PLOT, CHAIN_PLOT = "sockmap-bulk.svg", "sockmap-proxies.svg"

_HEAD = """# TCP between neighbours: with bypath-sockmap and without

Two pairs of pods on one node, made alike by bypath-host-gw. The policy of bypath-sockmap selects one pair; in the other
the same programs carry the same loads over plain TCP. Medians of {rounds} rounds; in each both pairs meet every load,
one right behind the other, and a change is the median of the rounds' changes. Every run in the selected pair was
checked by the programs' counters to have been redirected, every run in the other one not to have been.

Reproduce: `make build build/bench/load && .venv/bin/python -m bench.sockmap {options}` (as root). All
that is measured runs at the highest priority (nice -20), so that whatever else the machine does disturbs it little.
Where one process at a time has something to do, all share one processor: waking another one that idles takes longer
than the whole path, and would be most of each figure. Bulk goes where the scheduler has it, unless it says otherwise.
What is read and written lies at pages' beginnings, unless it says otherwise.

{kernel}, IPv4, MTU 1500; one connection with TCP_NODELAY; the load is bench/sockmap/load, in C. CPU time is
that of all processes on the way, client, server and proxies, and with it what the kernel does in their name.

Where it does not pay is below, too: [streams of small writes](#streams-of-small-writes),
[one flow between processors that sleep](#bulk-of-one-flow) and [what does not fit the limit](#beyond-the-limit).

"""
_REQUESTS = """One connection; so many bytes there, as many back, then the next. "Loopback" is an application and its
sidecar, two processes in one pod; "pod to pod" are two pods of the node.

"""
_MALLOCED = """The same with buffers that begin 16 bytes behind a page's beginning, as large ones of glibc's
malloc() do. What a large write brought lies at a page's beginning in the kernel, by either way, and processors with
"fast short rep mov" may copy 25 times slower to a place that is, within its page, 1 to 31 bytes behind what is
copied. That copy is then most of what a request takes, whichever way it goes; all other figures of this page are of
buffers at a page's beginning.

"""
_BUSY = """{flows} connections for each processor, a writer and a reader each, so that no processor is without work:
what a node can move at the most. A reader has a buffer of 256 KiB. For {msec} ms once the flows are steady, until
the last byte was read. Spills, all rounds together: how often a direction reached its limit of 64 MiB and went by
TCP until its reader had caught up.

"""
_AWAKE = """One connection, on a node that has nothing else to do. Its processors look for work instead of sleeping
when there is none, as administrators have them do where latency counts (/dev/cpu_dma_latency, tuned's profile
network-latency). A reader that is quicker than its writer still has to be woken for each write: with 16 KiB that is
about as much as the way of the bytes.

"""
_BULK = """The same on processors that sleep when they have nothing to do. To wake one takes longer, on a virtual
machine in particular, than 16 KiB take on their way: in writes of that size it is most of the figure, whichever way
they go.

"""
_STREAMS = """One connection again, with writes so small that each of them costs more than its bytes, and nobody
waits for an answer. Plain TCP gathers them into segments while the reader is busy, redirection hands over each by
itself: where the reader keeps up without sleeping, redirection loses.

"""
_SPILLS = """The same again, but the limit of a direction is {limit} MiB instead of 64, and the reader sleeps first, for
{stall} ms: the sender reaches the limit, goes by TCP, is redirected again once the reader has caught up, and so on. In
plain TCP the same reader sleeps as long.

"""
_CHAINS = """An application asks its own pod's proxy, that one the other pod's proxy, and that one the server: three
connections, two over loopback and one between pods, all redirected or none. Answers of so many bytes over connections
that all of them keep; one thread each. {versions}

"""
_CONNECT = """connect() and close(), without a byte; the server closes in between. "{nothing}": no pod of the node has a
policy, and so no program is attached. "{plain}" are pods without a policy beside pods that have one; they, and
every other process of the node, must not notice. The runtime names the cgroups of those (`cgroupPath`), and has not in
the column of the root cgroup. In brackets the median of what each batch took more than the one without bypath right
beside it.

"""
_STUCK = """Connections to readers that never read, each filled until its sender can write no more, under a limit of
{limit} MiB for the node. The bound is that limit and for each connection what plain TCP would hold, the largest send
buffer and receive buffer: {window:.0f} MiB.

"""
_WORDS = {"p50_us": "p50, µs", "p99_us": "p99, µs", "mean_us": "mean, µs", "cpu_us": "CPU, µs"}


def _changes(results: Results, load: str, setting: int, figures: Iterable[str], scale: float = 1.0) -> list[str]:
    """For each figure: plain TCP, bypath, and the change."""
    cells = []
    for figure in figures:
        values = [results.median(half, load, setting, figure) for half in (plan.PLAIN, plan.BYPATH)]
        cells += [number(None if value is None else value * scale, 2) for value in values]
        change = verdicts.change_percent(results, load, setting, figure)
        cells.append("—" if change is None else f"{change:+.0f} %")
    return cells


def _head(*figures: str) -> list[str]:
    return [cell for figure in figures for cell in (f"{figure}: plain", "bypath", "")]


def _times(results: Results, load: str, settings: Sequence[int], figures: Sequence[str]) -> str:
    rows = [(plan.size_name(size), *_changes(results, load, size, figures)) for size in settings]
    return table(("", *_head(*(_WORDS[figure] for figure in figures))), rows)


def requests(results: Results) -> str:
    text = f"## Requests\n\n{_REQUESTS}![requests]({REQUEST_PLOT})\n\n"
    for place in plan.PLACES:
        load = plan.load(plan.REQUESTS, place)
        text += f"{place.capitalize()}:\n\n" + _times(results, load, plan.REQUEST_SIZES, ("p50_us", "p99_us", "cpu_us"))
    text += f"### With malloc's buffers\n\n{_MALLOCED}"
    rows = []
    for place in plan.PLACES:
        load = plan.load(plan.MALLOCED, place)
        for size in plan.MALLOCED_SIZES:
            rows.append((f"{place}, {plan.size_name(size)}", *_changes(results, load, size, ("p50_us", "cpu_us"))))
    return text + table(("", *_head(_WORDS["p50_us"], _WORDS["cpu_us"])), rows)


def _flows(results: Results, name: str, writes: Sequence[int]) -> str:
    rows = []
    for place in plan.PLACES:
        load = plan.load(name, place)
        for size in writes:
            rates = _changes(results, load, size, ["bytes_per_sec"], 8e-9)
            costs = _changes(results, load, size, ["cpu_ns_per_byte"])
            spills = results.of(plan.BYPATH, load, size, "spills")
            share = number(results.median(plan.BYPATH, load, size, "redirected_percent"), 0)
            row = (f"{place}, {plan.size_name(size)}", *rates, *costs, number(sum(spills), 0), share)
            rows.append(row)
    return table(("", *_head("Gbit/s", "CPU, ns a byte"), "spills", "redirected, %"), rows)


def busy(results: Results) -> str:
    note = _BUSY.format(flows=plan.FLOWS_OF_A_CPU, msec=plan.Effort(*results.facts["effort"]).busy_msec)
    return f"## {plan.BUSY.capitalize()}\n\n{note}![bulk]({BULK_PLOT})\n\n" + _flows(
        results, plan.BUSY, plan.BUSY_WRITES
    )


def awake(results: Results) -> str:
    return f"## {plan.AWAKE.capitalize()}\n\n{_AWAKE}" + _flows(results, plan.AWAKE, plan.BULK_WRITES)


def bulk(results: Results) -> str:
    return f"## {plan.BULK.capitalize()}\n\n{_BULK}" + _flows(results, plan.BULK, plan.BULK_WRITES)


def streams(results: Results) -> str:
    title = "## Streams of small writes\n\n"
    return f"{title}{_STREAMS}![streams]({STREAM_PLOT})\n\n" + _flows(results, plan.BULK, plan.STREAM_WRITES)


def spills(results: Results) -> str:
    note = _SPILLS.format(limit=plan.SPILL_LIMIT_MIB, stall=plan.SPILL_STALL_MSEC)
    return f"## Beyond the limit\n\n{note}" + _flows(results, plan.SPILLING, plan.SPILLING_WRITES)


def chains(results: Results) -> str:
    text = _CHAINS.format(versions=results.facts["proxies"])
    text = f"## Through proxies\n\n{text}![proxies]({CHAIN_PLOT})\n\n"
    for proxy in plan.PROXIES:
        load = plan.load(plan.THROUGH, proxy)
        text += f"{proxy}:\n\n" + _times(results, load, plan.CHAIN_SIZES, ("mean_us", "p50_us", "p99_us", "cpu_us"))
    return text


def connections(results: Results) -> str:
    contenders = (plan.NOTHING, plan.PLAIN, plan.ROOTED, plan.BYPATH)
    rows = []
    for place in plan.PLACES:
        load = plan.load(plan.CONNECT, place)
        for figure in ("p50_us", "cpu_us"):
            cells = []
            for contender in contenders:
                change = verdicts.connect_percent(results, place, contender, figure)
                median = number(results.median(contender, load, 0, figure))
                cells.append(median if contender == plan.NOTHING else f"{median} ({number(change, 1, signed=True)} %)")
            rows.append((f"{place}: {_WORDS[figure]}", *cells))
    note = _CONNECT.format(nothing=plan.NOTHING, plain="not selected")
    head = ("", plan.NOTHING, "not selected", plan.ROOTED, "selected")
    return f"## Connecting\n\n{note}" + table(head, rows)


def stuck(results: Results) -> str:
    rows = []
    for readers in plan.STUCK_READERS:
        held = [results.median(half, plan.STUCK, readers, "held_bytes") for half in (plan.PLAIN, plan.BYPATH)]
        bound = verdicts.bound_bytes(results, readers)
        cells = [number(None if value is None else value / plan.MIB, 0) for value in (*held, bound)]
        rows.append((str(readers), *cells))
    note = _STUCK.format(limit=plan.NODE_LIMIT_MIB, window=results.facts["window_bytes"] / plan.MIB)
    head = ("readers", "plain TCP, MiB", "bypath, MiB", "bound, MiB")
    return f"## {plan.STUCK.capitalize()}\n\n{note}" + table(head, rows)


def _halves(results: Results, cells: Sequence[tuple[str, int]], figure: str, scale: float = 1.0) -> chart.Series:
    series = {}
    for half in reversed(plan.HALVES):
        found = [results.median(half, load, setting, figure) for load, setting in cells]
        series[half] = [None if value is None else value * scale for value in found]
    return series


def plots(results: Results) -> dict[str, str]:
    def cells(name: str, whats: Sequence[str], settings: Sequence[int]) -> list[tuple[str, int]]:
        return [(plan.load(name, what), setting) for what in whats for setting in settings]

    def places(whats: Sequence[str], settings: Sequence[int]) -> list[str]:
        return [f"{plan.size_name(setting)}\n{what}" for what in whats for setting in settings]

    def drawn(title: str, unit: str, name: str, whats: Sequence[str], settings: Sequence[int], figure: str) -> str:
        scale = 8e-9 if figure == "bytes_per_sec" else 1.0
        series = _halves(results, cells(name, whats, settings), figure, scale)
        return chart.bars(title, unit, places(whats, settings), series)

    return {
        REQUEST_PLOT: drawn(
            "A request and its answer, p50", "µs", plan.REQUESTS, plan.PLACES, plan.REQUEST_SIZES, "p50_us"
        ),
        BULK_PLOT: drawn(
            "Bulk of a busy node, by write size", "Gbit/s", plan.BUSY, plan.PLACES, plan.BUSY_WRITES, "bytes_per_sec"
        ),
        STREAM_PLOT: drawn(
            "Small writes, nobody waits", "Gbit/s", plan.BULK, plan.PLACES, plan.STREAM_WRITES, "bytes_per_sec"
        ),
        CHAIN_PLOT: drawn(
            "Through a proxy in each pod, mean", "µs", plan.THROUGH, plan.PROXIES, plan.CHAIN_SIZES, "mean_us"
        ),
    }


def files(results: Results) -> dict[str, str]:
    """Name below docs/benchmarks -> text."""
    load, size = plan.load(plan.REQUESTS, plan.LOOPBACK), plan.REQUEST_SIZES[0]
    rounds = len(results.of(plan.BYPATH, load, size, "p50_us"))
    quick = " --quick" if plan.Effort(*results.facts["effort"]) == plan.QUICK else ""
    head = _HEAD.format(rounds=rounds, options=f"--rounds {rounds}{quick}", kernel=results.facts["kernel"])
    judged = targets(verdicts.all_of(results), signed=True)
    sections = [requests, busy, awake, bulk, streams, spills, chains, connections, stuck]
    text = head + judged + "".join(section(results) for section in sections)
    return {"sockmap.md": text.rstrip("\n") + "\n", **plots(results)}
