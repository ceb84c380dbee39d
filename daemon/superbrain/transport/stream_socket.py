"""A connected Unix stream socket of an event loop: what the peer does not take yet waits, in order.

What is read, and how it is taken apart, is the business of the two kinds there are: `LaneSocket`
and `Peer`. The owner watches `pending_bytes` and decides how much is too much.
"""

from __future__ import annotations

import array
import select
import socket
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.wire.lane import Data

# Large enough that a typical image goes in one piece; the kernel caps it without privileges.
_SOCKET_BUFFER_BYTES = 8 << 20
_SO_SNDBUFFORCE = 32
_BUFFERS_PER_SEND = 512  # below IOV_MAX


class StreamSocket:
    """The sending half, and the end. Not thread-safe.

    Attributes:
        fd: the descriptor, for the owner's epoll.
        pending_bytes: what waits to be sent.
        ended: the peer has ended the connection; nothing more will come.
        broken: the peer takes nothing any more, but may have left something to read.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        _enlarge_send_buffer(sock)
        self._socket = sock
        self._outgoing: deque[Data] = deque()
        self._epoll: select.epoll | None = None
        self._mask = 0
        self.fd = sock.fileno()
        self._posted: list[Data] = []
        self.pending_bytes = 0
        self.ended = False
        self.broken = False

    def post(self, buffers: Sequence[Data]) -> bool:
        """Keep buffers for the next `deliver`; true for the first ones since the last."""
        first = not self._posted
        self._posted += buffers
        return first

    def deliver(self) -> None:
        """Send at once all that was posted: one system call for many small frames."""
        posted, self._posted = self._posted, []
        self.send(posted)

    def send(self, buffers: Sequence[Data]) -> None:
        """Send buffers, or keep what the peer does not take yet."""
        if self.broken:
            return
        if not self._outgoing and len(buffers) == 1:
            self._send_one(buffers[0])
            return
        if not self._outgoing and len(buffers) <= _BUFFERS_PER_SEND:
            self.keep(buffers, self._offer(buffers))
            return
        self._outgoing += buffers
        self.pending_bytes += sum(map(len, buffers))
        self.flush()

    def keep(self, buffers: Sequence[Data], sent: int) -> None:
        """Keep what the peer has not taken of buffers, of which it took `sent` bytes.

        Below zero, it takes nothing any more.
        """
        if sent < 0:
            self.give_up()
        size = sum(map(len, buffers))
        if sent == size or self.broken:
            return
        self._outgoing += buffers
        self.pending_bytes = size - sent
        self._forget(sent)

    def _send_one(self, data: Data) -> None:
        sent = self._offer((data,))
        if sent < len(data) and not self.broken:
            self._outgoing.append(memoryview(data)[sent:])
            self.pending_bytes = len(data) - sent

    def send_descriptor(self, data: Data, fd: int) -> bool:
        """Send bytes, a descriptor with the first of them; false when that cannot be done now."""
        if self._outgoing or self.broken:
            return False
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
        try:
            sent = self._socket.sendmsg([data], [rights])
        except BlockingIOError:
            return False
        except OSError as error:
            if not of_the_kernel(error):
                raise
            self.broken = True
            return False
        if sent < len(data):
            self._outgoing.append(memoryview(data)[sent:])
            self.pending_bytes = len(data) - sent
        return True

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it."""
        while self._outgoing:
            sent = self._offer(list(islice(self._outgoing, _BUFFERS_PER_SEND)))
            if not sent:
                return
            self.pending_bytes -= sent
            self._forget(sent)

    def _offer(self, buffers: Sequence[Data]) -> int:
        """Give the kernel what it takes, in bytes; it takes nothing more once `broken`."""
        try:
            if len(buffers) == 1:
                return self._socket.send(buffers[0])
            return self._socket.sendmsg(buffers)
        except BlockingIOError:
            return 0
        except OSError as error:
            if not of_the_kernel(error):
                raise
            self.give_up()
            return 0

    def give_up(self) -> None:
        """Take note that the peer takes nothing any more."""
        self.broken = True
        self._outgoing.clear()
        self.pending_bytes = 0

    def _forget(self, sent: int) -> None:
        while self._outgoing and sent >= len(self._outgoing[0]):
            sent -= len(self._outgoing.popleft())
        if sent:
            self._outgoing[0] = memoryview(self._outgoing[0])[sent:]

    def watch(self, epoll: select.epoll, *, reading: bool = True) -> None:
        """Let `epoll` report what there is to read, and room to write when something waits."""
        mask = (select.EPOLLIN if reading else 0) | (select.EPOLLOUT if self._outgoing else 0)
        if mask == self._mask:
            return
        change = epoll.register if self._epoll is None else epoll.modify
        self._epoll, self._mask = epoll, mask  # before, so that `close` undoes what a signal ended
        change(self.fd, mask)

    def close(self) -> None:
        """End the connection, also for the peer of a process that was forked while it was open."""
        if self._epoll is not None:
            epoll, self._epoll = self._epoll, None
            epoll.unregister(self.fd)
        self.ended = self.broken = True
        self._posted.clear()
        self._outgoing.clear()
        self.pending_bytes = 0
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def of_the_kernel(error: OSError) -> bool:
    """Whether a socket ended so: a signal's handler may raise one as well, such as a timeout."""
    return error.errno is not None or type(error) is OSError  # the latter: too long a path


def _enlarge_send_buffer(sock: socket.socket) -> None:
    """Ask for room; for a Unix socket the sender's buffer is what counts."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SOCKET_BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
