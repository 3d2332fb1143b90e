# SPDX-License-Identifier: Apache-2.0
"""A program for a pod: 64-byte requests over one TCP connection to an echo server, the next when the answer is there.

request.py ADDRESS PORT SECONDS prints the time of each as a JSON list, in microseconds.
"""

from __future__ import annotations

import json
import socket
import sys
import time

REQUEST = bytes(64)


def ask(connection: socket.socket) -> float:
    """Microseconds from before the request is sent until the whole answer is here."""
    begun = time.perf_counter_ns()
    connection.sendall(REQUEST)
    missing = len(REQUEST)
    while missing:
        answer = connection.recv(missing)
        if not answer:
            raise ConnectionError("the echo server closed the connection")
        missing -= len(answer)
    return (time.perf_counter_ns() - begun) / 1000


def main(address: str, port: str, seconds: str) -> None:
    with socket.create_connection((address, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(connection)  # the handshake's remains
        deadline = time.monotonic() + float(seconds)
        times = []
        while time.monotonic() < deadline:
            times.append(ask(connection))
    print(json.dumps(times))


if __name__ == "__main__":
    main(*sys.argv[1:])
