# SPDX-License-Identifier: Apache-2.0
"""Whether this kernel's sockmap is fit, run as a program in a scratch network namespace: status 0 when it is.

Redirected bytes must be there, and be counted as readable beside those that came by TCP.
"""

from __future__ import annotations

import array
import fcntl
import socket
import sys
import termios
import time

from tests.sockmap.attached import CHECKOUT, Attached, attach, netns_cookie

OBJECT = CHECKOUT / "build/tests/probe.bpf.o"
REDIRECTED, PASSED = 700, 50
FIRST, YES = bytes(4), (1).to_bytes(4, "little")


def readable_bytes(receiver: socket.socket) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(receiver, termios.FIONREAD, found)
    return found[0]


def segments_sent(sender: socket.socket) -> int:
    """Of data: tcpi_data_segs_out."""
    return int.from_bytes(sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)[156:160], "little")


def is_fit(programs: Attached) -> bool:
    programs.tables["netns"][FIRST] = netns_cookie().to_bytes(8, "little")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        client.sendall(bytes(REDIRECTED))
        counted = readable_bytes(server)
        if segments_sent(client):
            return False
        programs.tables["by_tcp"][FIRST] = YES
        client.sendall(bytes(PASSED))
        time.sleep(0.1)
        return (counted, readable_bytes(server)) == (REDIRECTED, REDIRECTED + PASSED)


def main() -> int:
    with attach(OBJECT) as programs:
        return 0 if is_fit(programs) else 1


if __name__ == "__main__":
    sys.exit(main())
