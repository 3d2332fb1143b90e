# SPDX-License-Identifier: Apache-2.0
"""python -m tests.kernels fetch|run|shell|test|table: the tests under Debian's kernels, in virtual machines."""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import time

from tests.kernels import boot, fetch, table

BUILD = boot.CHECKOUT / "build"
FEATURES = BUILD / "features"
PYTEST = [str(boot.CHECKOUT / ".venv/bin/python"), "-m", "pytest"]
# A kernel's tests are shared by several machines, of which two run side by side, since an emulated one has one
# processor. The longest come first, and REST is given what no other has.
REST, ALL = "rest", "all"
LANES = {
    "runtime": ["tests/runtime/test_*.py"],
    REST: [],
    "nic": ["tests/plugins/test_bandwidth_nic*.py"],
    "limits": [
        "tests/plugins/test_bandwidth.py",
        "tests/plugins/test_bypath_bandwidth.py",
        "tests/plugins/test_bandwidth_ifb*.py",
        "tests/plugins/test_bandwidth_traffic.py",
    ],
}
MACHINES_AT_ONCE = 2
# make hands down when it started.
STARTED = float(os.environ.get("START") or time.time())


def say(text: str) -> None:
    """One line of progress, with the time since the start."""
    elapsed = int(time.time() - STARTED)
    print(f"==> {elapsed // 60:3d}:{elapsed % 60:02d} {text}", flush=True)


def environment() -> dict[str, str]:
    """What the tests are told, here and in a machine."""
    passed = {name: os.environ[name] for name in ("BYPATH_DIST", "BYPATH_ONCE", "CI") if name in os.environ}
    return passed | {"BYPATH_FEATURES_DIR": str(FEATURES)}


def obtain(series: str, args: argparse.Namespace) -> fetch.Kernel:
    """The kernel of a series such as "6.1"; fetched first when it must be."""
    return fetch.kernel(series, lambda text: say(f"kernel {series}: {text}"), refresh=args.refresh)


def machine(kernel: fetch.Kernel, name: str, args: argparse.Namespace) -> boot.Machine:
    """A machine that can run beside others of another name."""
    return boot.Machine(kernel, BUILD / "kernels" / kernel.release / name, memory_mib=args.memory, cpus=args.cpus)


def native(args: argparse.Namespace) -> bool:
    """All tests, on the kernel that runs."""
    say(f"pytest on this machine's kernel, {os.uname().release}")
    done = subprocess.run([*PYTEST, *args.pytest], cwd=boot.CHECKOUT, env={**os.environ, **environment()}, check=False)
    return finished("pytest on this machine's kernel", done.returncode)


def selection(lane: str) -> list[str]:
    """pytest's arguments for one machine's share."""
    chosen = {name: [str(file) for glob in LANES[name] for file in sorted(boot.CHECKOUT.glob(glob))] for name in LANES}
    if lane == ALL:
        return []
    if lane == REST:
        return [f"--ignore={file}" for files in chosen.values() for file in files]
    return chosen[lane]


def under(guest: boot.Machine, lane: str, args: argparse.Namespace) -> bool:
    """The tests of one lane that carry a feature mark, under another kernel."""
    result = FEATURES / f"{guest.kernel.release}.{lane}.json"
    # Removed here and written there: a machine that died cannot pass with an earlier run's result.
    result.unlink(missing_ok=True)
    what = f"{guest.kernel.release} {lane}"
    say(f"{what}: booting (console: {guest.console})")
    argv = [*PYTEST, "-v", "--only-features", "--features-json", str(result), "-p", "no:cacheprovider"]
    argv += selection(lane) + args.pytest
    variables = environment() | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        status = boot.run_in_vm(guest, argv, variables, args.timeout, lambda line: say(f"{what}: {line}"))
    except boot.VmError as error:
        say(f"{what}: ERROR: {error}")
        return False
    return finished(f"pytest under {what}", status)


def finished(what: str, status: int) -> bool:
    """Report an exit status; True when it is 0."""
    say(f"{what}: {'passed' if status == 0 else f'FAILED with exit status {status}'}")
    return status == 0


def show() -> bool:
    """Print the table of all results; True when each feature passed somewhere and failed nowhere."""
    text, problems = table.render(table.load(sorted(FEATURES.glob("*.json"))))
    print(f"\n{text}\n", flush=True)
    for problem in problems:
        say(f"ERROR: {problem}")
    return not problems


def run(args: argparse.Namespace) -> bool:
    """Each of the kernels, also after one that failed."""
    # A choice of tests is one machine's work.
    lanes = [ALL] if args.pytest else list(LANES)
    passed, guests = True, []
    for series in args.kernel:
        try:
            kernel = obtain(series, args)
        except fetch.FetchError as error:
            say(f"ERROR: {error}")
            passed = False
        else:
            guests += [(machine(kernel, lane, args), lane) for lane in lanes]
    with concurrent.futures.ThreadPoolExecutor(MACHINES_AT_ONCE) as pool:
        return all([passed, *pool.map(lambda guest: under(guest[0], guest[1], args), guests)])


def test(args: argparse.Namespace) -> bool:
    """Everything, and the table over it."""
    shutil.rmtree(FEATURES, ignore_errors=True)
    os.environ["BYPATH_ONCE"] = "1"
    passed = native(args)
    passed &= run(args)
    return show() and passed


def shell(args: argparse.Namespace) -> bool:
    """An interactive root shell under the first of the kernels."""
    guest = machine(obtain(args.kernel[0], args), "shell", args)
    return boot.interact(guest, ["/bin/bash"], environment() | {"TERM": os.environ.get("TERM", "linux")}) == 0


def prefetch(args: argparse.Namespace) -> bool:
    """Have all of the kernels in the cache, and name them."""
    for series in args.kernel:
        say(f"kernel {series}: {obtain(series, args).directory}")
    return True


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; everything after `--` goes to pytest."""
    end = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    commands = {"fetch": prefetch, "run": run, "shell": shell, "test": test, "table": lambda _args: show()}
    parser.add_argument("command", choices=commands)
    parser.add_argument(
        "--kernel", type=lambda text: text.split(","), default=["6.1"], help="6.1, 6.12, 7.3, or several: 6.1,7.3"
    )
    parser.add_argument("--refresh", action="store_true", help="look for a newer kernel package than the cached one")
    parser.add_argument(
        "--timeout", type=float, default=4200, help="seconds for one machine, from its start (%(default)s)"
    )
    parser.add_argument("--memory", type=int, default=4096, help="MiB for the machine (%(default)s)")
    parser.add_argument("--cpus", type=int, default=boot.Machine.cpus, help="CPUs of the machine (%(default)s)")
    args = parser.parse_args(argv[:end])
    args.pytest, args.call = argv[end + 1 :], commands[args.command]
    return args


def main() -> int:
    """The exit status: 0 when all of the command's tests passed and every row of the table is good."""
    args = parse(sys.argv[1:])
    pathlib.Path(BUILD).mkdir(exist_ok=True)
    try:
        return 0 if args.call(args) else 1
    except (boot.VmError, fetch.FetchError) as error:
        say(f"ERROR: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
