# SPDX-License-Identifier: Apache-2.0
"""redis clients, as a program for a pod: all that they read is compared with what they wrote.

resp.py ADDRESS PORT pipelines|large|subscribers

Prints {"exchanges": commands or messages, "bytes": of all values, "wrong": how many were not what was written}.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

PATIENCE_SEC = 30
CONNECTIONS = 8
PIPELINE, LARGE_BYTES, MESSAGES = 1500, 12 << 20, 1200
SIZES = (0, 1, 17, 300, 1448, 4096, 20_000)


def value(name: str, size: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(size)


class Redis:
    """One connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=PATIENCE_SEC)
        self._file = self._socket.makefile("rb")

    def send(self, *commands: tuple[str | bytes, ...]) -> None:
        """All of them, one behind the other, without waiting for an answer."""
        self._socket.sendall(b"".join(map(encoded, commands)))

    def answer(self) -> bytes | int | list[object] | None:
        """The next one. Raises RuntimeError for an error of the server, EOFError when it hung up."""
        line = self._file.readline()
        if not line:
            raise EOFError("redis hung up")
        kind, text = line[:1], line[1:-2]
        if kind == b"+":
            return text
        if kind == b":":
            return int(text)
        if kind == b"$":
            return None if text == b"-1" else self._file.read(int(text) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(text))]
        raise RuntimeError(line.decode(errors="replace"))


def encoded(command: tuple[str | bytes, ...]) -> bytes:
    words = [word.encode() if isinstance(word, str) else word for word in command]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def pipelines(address: tuple[str, int], number: int) -> tuple[int, int, int]:
    redis = Redis(address)
    wanted = {f"{number}-{each}": value(f"{number}-{each}", SIZES[each % len(SIZES)]) for each in range(PIPELINE)}
    redis.send(*(("SET", key, content) for key, content in wanted.items()))
    wrong = sum(redis.answer() != b"OK" for _ in wanted)
    redis.send(*(("GET", key) for key in wanted))
    wrong += sum(redis.answer() != content for content in wanted.values())
    return 2 * len(wanted), 2 * sum(map(len, wanted.values())), wrong


def large(address: tuple[str, int], number: int) -> tuple[int, int, int]:
    redis = Redis(address)
    content = value(str(number), LARGE_BYTES)
    redis.send(("SET", f"large-{number}", content), ("GET", f"large-{number}"))
    wrong = (redis.answer() != b"OK") + (redis.answer() != content)
    return 2, 2 * len(content), wrong


def messages() -> list[bytes]:
    return [value(f"message-{number}", SIZES[number % len(SIZES)]) for number in range(MESSAGES)]


def subscribers(address: tuple[str, int], number: int) -> tuple[int, int, int]:
    """The first one publishes, and begins when all the others have subscribed."""
    redis = Redis(address)
    wanted = messages()
    if number == 0:
        redis.send(("PUBSUB", "NUMSUB", "news"))
        while redis.answer() != [b"news", CONNECTIONS - 1]:
            redis.send(("PUBSUB", "NUMSUB", "news"))
        redis.send(*(("PUBLISH", "news", content) for content in wanted))
        wrong = sum(redis.answer() != CONNECTIONS - 1 for _ in wanted)
    else:
        redis.send(("SUBSCRIBE", "news"))
        redis.answer()
        wrong = sum(redis.answer() != [b"message", b"news", content] for content in wanted)
    return len(wanted), sum(map(len, wanted)), wrong


def main(host: str, port: str, what: str) -> None:
    run = {"pipelines": pipelines, "large": large, "subscribers": subscribers}[what]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        seen = list(pool.map(run, [(host, int(port))] * CONNECTIONS, range(CONNECTIONS)))
    exchanges, size, wrong = map(sum, zip(*seen, strict=True))
    print(json.dumps({"exchanges": exchanges, "bytes": size, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
