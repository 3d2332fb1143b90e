# SPDX-License-Identifier: Apache-2.0
"""Where the self-test is made: a network namespace with nothing but lo, the only pod in an own set of maps."""

from __future__ import annotations

import _socket
import errno
import posix

from bpf import command, maps, sockets
from cni.net import link, netns
from sockmap import layout
from sockmap.layout import U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from bpf.libbpf import BpfObject

LIMIT_BYTES = 256 << 10
"""Of the scratch pod's policy."""
_BUFFER_BYTES = 64 << 10
"""SO_SNDBUF and SO_RCVBUF, so that what TCP keeps is small and does not grow."""
_LOOPBACK = "127.0.0.1"
_ATTACHMENT = 0


class Unsuitable(Exception):
    """A behaviour that failed: its name, and what was seen."""


class Scratch:
    """A loaded object in force for the scratch namespace alone, from `with` to its end."""

    def __init__(self, loaded: BpfObject) -> None:
        self._maps = loaded.map_fds()
        self._programs = loaded.program_fds()
        self._pod = netns.scratch()
        self._cookie = U64.pack(self._pod.inside(netns.cookie))
        self._cpus = maps.possible_cpus()
        self._link = -1
        self._sockets: list[_socket.socket] = []

    def __enter__(self) -> Scratch:
        self._pod.rtnetlink().ask(link.set_up("lo"))
        command.update(self._maps["counters"], self._cookie, bytes(layout.COUNTERS.size * self._cpus))
        policy = layout.pack_policy(layout.SIDECAR, LIMIT_BYTES, [], [], _ATTACHMENT)
        command.update(self._maps["pods"], self._cookie, policy)
        try:
            self._attach()
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                raise Unsuitable(f"attaching: {error.strerror}") from None
            raise
        return self

    def _attach(self) -> None:
        for name, hook in (("sm_msg", command.SK_MSG_VERDICT), ("sm_skb", command.SK_SKB_VERDICT)):
            command.map_attach(self._programs[name], self._maps["socks"], hook)
        cgroup = posix.open(sockets.root_cgroup(), posix.O_RDONLY | posix.O_CLOEXEC | posix.O_DIRECTORY)
        try:
            self._link = command.link_create_cgroup(self._programs["sm_ops"], cgroup, command.SOCK_OPS)
        finally:
            posix.close(cgroup)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """The link is unpinned, so closing it detaches the program."""
        for end in self._sockets:
            end.close()
        self._pod.rtnetlink().close()
        posix.close(self._pod.descriptor)
        if self._link >= 0:
            posix.close(self._link)

    def counters(self) -> dict[str, int]:
        """Of the scratch pod, by the names of layout.COUNTERS."""
        size = layout.COUNTERS.size
        values = command.lookup(self._maps["counters"], self._cookie, size * self._cpus) or bytes(size)
        return layout.sum_counters(values, size)

    def connection(self) -> tuple[_socket.socket, _socket.socket]:
        """(the one that connected, the one that was accepted), over loopback."""
        return self._pod.inside(self._connect)

    def _connect(self) -> tuple[_socket.socket, _socket.socket]:
        listener, client = self._socket(), self._socket()
        listener.bind((_LOOPBACK, 0))
        listener.listen(1)
        client.connect(listener.getsockname())
        server = _socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]
        self._sockets.append(server)
        listener.close()
        return client, server

    def _socket(self) -> _socket.socket:
        made = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._sockets.append(made)
        for option in (_socket.SO_SNDBUF, _socket.SO_RCVBUF):
            made.setsockopt(_socket.SOL_SOCKET, option, _BUFFER_BYTES)
        return made
