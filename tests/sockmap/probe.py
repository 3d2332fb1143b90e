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

from tests.sockmap.live import Live, live, netns_cookie

REDIRECTED, PASSED = 700, 50


def readable_bytes(receiver: socket.socket) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(receiver, termios.FIONREAD, found)
    return found[0]


def is_fit(programs: Live) -> bool:
    programs.add_pod(netns_cookie())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        if programs.sockets() != 2:
            return False
        client.sendall(bytes(REDIRECTED))
        if programs.counters(netns_cookie())["redirected_bytes"] != REDIRECTED:
            return False
        counted = readable_bytes(server)
        # Without a policy the open connection goes on by TCP.
        programs.forget_pods()
        client.sendall(bytes(PASSED))
        time.sleep(0.1)
        return (counted, readable_bytes(server)) == (REDIRECTED, REDIRECTED + PASSED)


def main() -> int:
    with live() as programs:
        return 0 if is_fit(programs) else 1


if __name__ == "__main__":
    sys.exit(main())
