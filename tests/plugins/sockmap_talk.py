# SPDX-License-Identifier: Apache-2.0
"""Two programs that talk over TCP, run in pods: every byte is random, comes back, and is compared.

serve [ADDRESS]       prints its port, then sends everything back on every connection until that ends
ask ADDRESS PORT ...  opens a connection to each port; for every line "EXCHANGES BYTES" on stdin it sends so many
                      messages of so many bytes on each and prints how many bytes came back as they were sent; when
                      stdin ends it half-closes all of them, and prints "closed" when the server's ends have come
"""

from __future__ import annotations

import os
import socket
import sys
import threading

PATIENCE_SEC = 20


def serve(address: str = "::") -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family, dualstack_ipv6=address == "::", backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


def echo(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def exchange(connection: socket.socket, size: int) -> int:
    sent = os.urandom(size)
    connection.sendall(sent)
    received = bytearray()
    while len(received) < size:
        data = connection.recv(size - len(received))
        if not data:
            break
        received += data
    if received != sent:
        sys.exit(f"{len(received)} of {size} bytes came back, or others than were sent")
    return size


def ask(address: str, *ports: str) -> None:
    connections = [socket.create_connection((address, int(port)), timeout=PATIENCE_SEC) for port in ports]
    print("open", flush=True)
    for line in sys.stdin:
        exchanges, size = map(int, line.split())
        print(sum(exchange(each, size) for _ in range(exchanges) for each in connections), flush=True)
    for connection in connections:
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1):
            sys.exit("bytes came that nobody sent")
    print("closed", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        ask(*sys.argv[2:])
