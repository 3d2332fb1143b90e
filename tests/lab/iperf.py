# SPDX-License-Identifier: Apache-2.0
"""iperf3 between a pod and the outside host: what arrived, second by second, as the receiver tells it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from subprocess import DEVNULL
from typing import Any, NamedTuple

from tests.lab.fabric import OUTSIDE_IP
from tests.lab.node import Node

PAYLOAD_PER_PACKET, BYTES_PER_PACKET = 1448, 1514
"""Of a full TCP segment with timestamps on an Ethernet of MTU 1500: the shaped rate counts the whole frame."""
WARM_UP_SEC, ROW_SEC = 2, 3
LEAST_INTERVAL_SEC = 0.5
"""What is shorter is the rest behind the last second."""
TRIES, TOLERANCE = 3, 0.05


class Speed(NamedTuple):
    """Payload bits per second on the whole and in the best ROW_SEC seconds in a row, and retransmitted segments; all
    without the first WARM_UP_SEC."""

    mean: float
    best: float
    retransmits: int

    def of_frames(self, frame_bytes: int = BYTES_PER_PACKET, payload_bytes: int = PAYLOAD_PER_PACKET) -> Speed:
        """The same in bits of whole frames, which is what a limit counts."""
        factor = frame_bytes / payload_bytes
        return Speed(self.mean * factor, self.best * factor, self.retransmits)


def measure(
    outside: Node, run: Callable[[list[str]], str], *options: str, server: str = OUTSIDE_IP, seconds: int = 8
) -> Speed:
    """run: gives what a command printed in the pod. options: iperf3's; with "-R" the pod receives."""
    listening = outside.popen(["iperf3", "-s", "-1", "-J"], stdout=DEVNULL)
    deadline = time.monotonic() + 60
    while not outside.run(["ss", "-Hltn", "sport = :5201"]).stdout:
        assert listening.poll() is None and time.monotonic() < deadline, "the iperf3 server does not listen"
        time.sleep(0.1)
    report = json.loads(run(["iperf3", "-c", server, "-J", "--get-server-output", "-t", str(seconds), *options]))
    outside.stop(listening)
    assert "error" not in report, report["error"]
    sender, receiver = report["intervals"], report["server_output_json"]["intervals"]
    return speed_of(receiver, sender) if "-R" in options else speed_of(sender, receiver)


def speed_of(sender: list[Any], receiver: list[Any]) -> Speed:
    """Of both ends' intervals, iperf3's."""
    retransmits = sum(each["sum"].get("retransmits", 0) for each in sender[WARM_UP_SEC:])
    whole = [each["sum"] for each in receiver if each["sum"]["seconds"] > LEAST_INTERVAL_SEC][WARM_UP_SEC:]
    assert len(whole) >= ROW_SEC, f"only {len(whole)} whole seconds behind the first {WARM_UP_SEC} were measured"
    rows = [whole[start : start + ROW_SEC] for start in range(len(whole) - ROW_SEC + 1)]
    return Speed(_rate(whole), max(map(_rate, rows)), retransmits)


def _rate(sums: list[Any]) -> float:
    return float(sum(each["bytes"] for each in sums) * 8 / sum(each["seconds"] for each in sums))


def kept(limit_bits_per_sec: float, measure: Callable[[], Speed]) -> list[Speed]:
    """Asserts that a limit is kept within 5 %, and gives what was measured.

    No run is faster on the whole. A run may be slower where the machine is: emulated, and without a processor for tens
    of milliseconds at a time, which no bucket catches up with. So some seconds in a row, in one of three runs, have to
    come up to the limit: a limiter that is too slow has none.
    """
    measured: list[Speed] = []
    while not measured or (measured[-1].best < (1 - TOLERANCE) * limit_bits_per_sec and len(measured) < TRIES):
        measured.append(measure())
        print(measured[-1])
        assert measured[-1].mean <= (1 + TOLERANCE) * limit_bits_per_sec, measured
    assert measured[-1].best >= (1 - TOLERANCE) * limit_bits_per_sec, measured
    return measured
