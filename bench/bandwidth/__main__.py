# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.bandwidth`: limits kept by bypath-bandwidth-edt and by the reference plugin, in one run.

On a kernel without fq the traffic is measured in a virtual machine; the program's own cost always on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from bench.bandwidth import cost, counting, plan, report, rounds
from bench.bandwidth.starvation import Starvation
from bench.samples import Results
from tests.kernels import boot, fetch, probes
from tests.lab.executable import DIST, REPO

RESULTS, COSTS = REPO / "build/bench/bandwidth.json", REPO / "build/bench/bandwidth-cost.json"
DOCUMENTS = REPO / "docs/benchmarks"
NO_TRAFFIC = ("__main__", "cost", "counting", "report", "starvation", "verdicts")
"""Modules that may change between rounds that are added up."""
CLOSING_SEC = 75
"""Of the time given: the machine boots, and the pods are removed."""
IN_THE_MACHINE = "--in-the-machine"


def sources() -> str:
    """A digest of what was measured: rounds of other programs are not to be added."""
    digest = hashlib.sha256()
    for path in sorted((REPO / "build/bpf").glob("edt*.sha256")) + sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in NO_TRAFFIC:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def keep(results: Results) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(results.to_json())


def order_of(args: argparse.Namespace) -> rounds.Order:
    rates = plan.EMULATED_RATES if rounds.EMULATED else plan.NATIVE_RATES
    return rounds.Order(args.rounds, args.seconds, not args.quick, rates, args.timeout - CLOSING_SEC)


def in_a_machine(args: argparse.Namespace) -> float:
    """The percentage of the time for which the machine had no processor.

    Raises boot.VmError, fetch.FetchError, or SystemExit when the benchmark in the machine failed.
    """
    kernel = fetch.kernel(args.kernel, rounds.say)
    machine = boot.Machine(kernel, REPO / "build/kernels/bench-bandwidth")
    rounds.say(f"this kernel has no fq: booting {kernel.release}, which is emulated and some ten times slower")
    argv = [str(REPO / ".venv/bin/python"), "-m", "bench.bandwidth", IN_THE_MACHINE, "--rounds", str(args.rounds)]
    argv += ["--seconds", str(args.seconds), "--timeout", str(args.timeout), *(["--quick"] if args.quick else [])]
    watch = Starvation(boot.say)
    status = boot.run_in_vm(machine, argv, {"PYTHONDONTWRITEBYTECODE": "1"}, args.timeout, watch)
    if status:
        raise SystemExit(f"the benchmark in the machine ended with status {status}; its console is {machine.console}")
    return watch.percent


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bandwidth", description=__doc__)
    parser.add_argument("--kernel", default="6.1", help="of the virtual machine: 6.1, 6.12 or 7.3 (%(default)s)")
    parser.add_argument("--rounds", type=int, help="interleaved rounds; 5, quick 2")
    parser.add_argument("--seconds", type=int, help="of each load; 5, quick 4")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and most loads at the lowest rate only")
    parser.add_argument("--report", action="store_true", help="measure nothing; report the last run anew")
    parser.add_argument("--cost", action="store_true", help="measure the program's cost only, beside the last traffic")
    parser.add_argument("--more", action="store_true", help="add these rounds to those of the last run")
    words = "seconds for the traffic; rounds that do not fit are left out (%(default)s)"
    parser.add_argument("--timeout", type=float, default=3600, help=words)
    parser.add_argument(IN_THE_MACHINE, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.seconds = args.seconds or (4 if args.quick else 5)
    if args.seconds < 3:
        parser.error("--seconds: the first and the last second do not count, so at least 3")
    return args


def traffic(args: argparse.Namespace) -> Results:
    """Of this run, and with --more of the last one, too."""
    if args.report or args.cost:
        return Results.from_json(RESULTS.read_text())
    earlier = Results.from_json(RESULTS.read_text()) if args.more else None
    RESULTS.unlink(missing_ok=True)
    starved_percent = 0.0
    try:
        if probes.has("fq"):
            rounds.run(order_of(args), sources(), keep)
        else:
            starved_percent = in_a_machine(args)
    finally:
        if not RESULTS.exists() and earlier:
            keep(earlier)
    results = Results.from_json(RESULTS.read_text())
    results.add(plan.NO_LIMIT, plan.STARVED, 0, percent=starved_percent)
    if earlier:
        results.include(earlier)
    keep(results)
    return results


def program(args: argparse.Namespace) -> tuple[report.Costs, report.Costs]:
    """Nanoseconds and instructions."""
    if not args.report:
        rounds.say("the program's own cost, on this machine's kernel")
        costs = cost.measure()
        rounds.say("the same in instructions, in a virtual machine that counts them")
        instructions = counting.measure(fetch.kernel(args.kernel, rounds.say))
        COSTS.write_text(json.dumps([costs, instructions]))
    costs, instructions = json.loads(COSTS.read_text())
    return costs, instructions


def main() -> None:
    args = parse()
    if not (DIST / "bypath-bandwidth-edt").exists():
        raise SystemExit(f"{DIST} holds no bypath-bandwidth-edt; type: make build")
    if args.in_the_machine:
        rounds.run(order_of(args), sources(), keep)
        return
    try:
        results, (costs, instructions) = traffic(args), program(args)
    except (boot.VmError, fetch.FetchError) as error:
        raise SystemExit(str(error)) from None
    DOCUMENTS.mkdir(parents=True, exist_ok=True)
    for name, text in report.files(results, costs, instructions, args).items():
        (DOCUMENTS / name).write_text(text)
    print((DOCUMENTS / "bandwidth.md").read_text())


if __name__ == "__main__":
    main()
