# SPDX-License-Identifier: Apache-2.0
"""The outside host's servers, run as a program: they tell each client the address and port that it was seen with.

HTTP on 80: the body is "<address> <port>\\n"; GET /bytes/<n> answers with n bytes instead.
Port 7: TCP echoes every byte, UDP answers each datagram with "<address> <port> " before it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

HTTP_PORT, ECHO_PORT = 80, 7


def seen(peer: Any) -> bytes:
    return f"{str(peer[0]).removeprefix('::ffff:')} {peer[1]}".encode()


def answer(connection: socket.socket, peer: Any) -> None:
    """One HTTP/1.1 connection, kept alive until the client closes it or asks for that."""
    with connection, connection.makefile("rb") as requests:
        while request := requests.readline():
            headers = [line.lower() for line in iter(requests.readline, b"\r\n") if line]
            path = request.split()[1]
            body = bytes(int(path[7:])) if path.startswith(b"/bytes/") else seen(peer) + b"\n"
            last = any(line.startswith(b"connection:") and b"close" in line for line in headers)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), b"Connection: close\r\n" * last) + body
            )
            if last:
                return


def echo(connection: socket.socket, peer: Any) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def listen(port: int, serve: Any) -> None:
    server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)

    def accept() -> None:
        while True:
            threading.Thread(target=guarded, args=(serve, *server.accept()), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def guarded(serve: Any, connection: socket.socket, peer: Any) -> None:
    with contextlib.suppress(OSError):  # a client may vanish: that is its test's business
        serve(connection, peer)


def main() -> None:
    listen(HTTP_PORT, answer)
    listen(ECHO_PORT, echo)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(("::", ECHO_PORT))
    print("ready", flush=True)
    while True:
        data, peer = datagrams.recvfrom(65536)
        datagrams.sendto(seen(peer) + b" " + data, peer)


if __name__ == "__main__":
    main()
