# SPDX-License-Identifier: Apache-2.0
"""An HTTP origin and its clients, as programs for pods. A body follows from its path, so that both ends know it.

serve PORT            GET /SEED/BYTES answers with that body; POST gives back what it was sent
tree DIRECTORY        makes the files SEED/BYTES that GET asks for, for a server of files
ask METHODS THREADS COUNT PATIENCE ADDRESS:PORT...
                      each thread sends COUNT requests over connections that it keeps, one to each server, in turn;
                      METHODS is GET, or GET,POST; an answer that takes PATIENCE seconds is wrong. Prints
                      {"exchanges": n, "bytes": of all bodies, "wrong": how many were not as they should be}
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

SIZES = (0, 1, 100, 1448, 5_000, 16_384, 70_000, 300_000, 2_000_000)
SEEDS = 4


def body(path: str) -> bytes:
    """Of "/SEED/BYTES"."""
    size = int(path.rpartition("/")[2])
    return hashlib.shake_128(path.encode()).digest(size)


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body(self.path))

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """A line for each request would be all that the log holds."""


class Listener(socketserver.ThreadingTCPServer):
    """Not HTTPServer, which asks the resolver for the name of its address, and a pod has none."""

    daemon_threads = True
    request_queue_size = 512


def serve(port: str) -> None:
    Listener(("0.0.0.0", int(port)), Origin).serve_forever()


class Client(threading.Thread):
    """One of those that ask at the same time; what it saw is in its fields once it has ended."""

    def __init__(self, number: int, methods: list[str], count: int, patience_sec: float, servers: list[str]) -> None:
        super().__init__()
        self._random = random.Random(number)
        self._methods, self._count, self._patience_sec, self._servers = methods, count, patience_sec, servers
        self.exchanges = self.bytes = self.wrong = 0

    def run(self) -> None:
        connections = [http.client.HTTPConnection(server, timeout=self._patience_sec) for server in self._servers]
        for number in range(self._count):
            self._exchange(connections[number % len(connections)])
        for connection in connections:
            connection.close()

    def _exchange(self, connection: http.client.HTTPConnection) -> None:
        method = self._random.choice(self._methods)
        path = f"/{self._random.randrange(SEEDS)}/{self._random.choice(SIZES)}"
        expected = body(path)
        self.exchanges += 1
        try:
            connection.request(method, path, expected if method == "POST" else None)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            print(f"{method} {path}: {error!r}", file=sys.stderr)
            self.wrong += 1
            connection.close()
            return
        self.wrong += answer.status != 200 or content != expected
        self.bytes += len(content) * (2 if method == "POST" else 1)


def ask(methods: str, threads: str, count: str, patience_sec: str, *servers: str) -> None:
    each = methods.split(","), int(count), float(patience_sec), list(servers)
    clients = [Client(number, *each) for number in range(int(threads))]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    sums = {what: sum(getattr(client, what) for client in clients) for what in ("exchanges", "bytes", "wrong")}
    print(json.dumps(sums))


def tree(directory: str) -> None:
    for seed in range(SEEDS):
        (Path(directory) / str(seed)).mkdir(parents=True)
        for size in SIZES:
            (Path(directory) / str(seed) / str(size)).write_bytes(body(f"/{seed}/{size}"))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "serve":
        serve(*arguments)
    elif command == "ask":
        ask(*arguments)
    else:
        tree(*arguments)
