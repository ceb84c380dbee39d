"""One end of a lane over a non-blocking Unix stream socket: frames in, frames out, the end of it.

Both ends use it: the worker for whoever asks it, the gateway for each worker. What the peer does
not read yet waits here in order; the owner watches `pending_bytes` and decides how much is too
much.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from superbrain.wire.lane import Data, LaneDecoder, LaneError, LaneFrame
from superbrain.wire.messages import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

# Large enough that a typical image goes in one piece; the kernel caps it without privileges.
_SOCKET_BUFFER_BYTES = 8 << 20
_SO_SNDBUFFORCE = 32
_BUFFERS_PER_SEND = 512  # below IOV_MAX
_READS_PER_TURN = 4  # the head of a large frame, its body; then others get their turn


_MAX_DESCRIPTORS = 4
_CONTROL_BYTES = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)


class LaneSocket:
    """A connected lane. Not thread-safe.

    Args:
        sock: the connected socket, which belongs to the lane from now on.
        takes_descriptors: whether the peer may send file descriptors; without it the kernel drops
            them, and reading costs a microsecond less.
    """

    def __init__(self, sock: socket.socket, *, takes_descriptors: bool = False) -> None:
        sock.setblocking(False)
        _enlarge_send_buffer(sock)
        self._socket = sock
        self._decoder = LaneDecoder(MAX_MESSAGE_BYTES)
        self._outgoing: deque[Data] = deque()
        self._epoll: select.epoll | None = None
        self._mask = 0
        self._takes_descriptors = takes_descriptors
        self._descriptors: list[int] = []
        self.fd = sock.fileno()
        self.pending_bytes = 0
        self.ended = False  # the peer has ended the lane; nothing more will come
        self.broken = False  # the peer takes nothing any more, but may have left something to read

    def receive(self) -> list[LaneFrame]:
        """Read what is there, within a fair share; sets `ended` at end of file.

        Raises:
            LaneError: what came is no frame; the lane must be closed.
        """
        frames: list[LaneFrame] = []
        for _ in range(_READS_PER_TURN):
            room = self._decoder.buffer()
            try:
                count = (self._read if self._takes_descriptors else self._socket.recv_into)(room)
            except BlockingIOError:
                break
            except OSError:  # a reset comes after everything that was sent before it
                count = 0
            if not count:
                self.ended = True
                break
            frames += self._decoder.received(count)
            if frames or count < len(room):
                break
        return frames

    def take_descriptor(self) -> int | None:
        """Give the oldest descriptor that no frame has claimed; it is the caller's to close."""
        return self._descriptors.pop(0) if self._descriptors else None

    def close_unasked(self) -> None:
        """Close descriptors that no frame has claimed, unless their frame is still on its way."""
        if self._descriptors and self._decoder.between_frames:
            self._close_descriptors()

    def _read(self, room: memoryview) -> int:
        """Receive bytes, and descriptors if any came; the kernel gives no more than we may keep."""
        count, control, flags, _ = self._socket.recvmsg_into(
            (room,), _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        if control or flags & socket.MSG_CTRUNC:
            self._keep(control, truncated=bool(flags & socket.MSG_CTRUNC))
        return count

    def _keep(self, control: Sequence[tuple[int, int, bytes]], *, truncated: bool) -> None:
        for level, kind, data in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                self._descriptors += fds
        if truncated or len(self._descriptors) > _MAX_DESCRIPTORS:
            self._close_descriptors()
            raise LaneError(
                f"expected at most {_MAX_DESCRIPTORS} descriptors that no frame has claimed, "
                "found more"
            )

    def _close_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def send(self, buffers: Sequence[Data]) -> None:
        """Send the buffers of one or more frames, or keep what the peer does not take yet."""
        if self.broken:
            return
        size = sum(map(len, buffers))
        if not self._outgoing and len(buffers) <= _BUFFERS_PER_SEND:
            sent = self._offer(buffers)
            if sent == size or self.broken:
                return
            self._outgoing += buffers
            self.pending_bytes = size - sent
            self._forget(sent)
            return
        self._outgoing += buffers
        self.pending_bytes += size
        self.flush()

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
        except OSError:
            self.broken = True
            self._outgoing.clear()
            self.pending_bytes = 0
            return 0

    def _forget(self, sent: int) -> None:
        while self._outgoing and sent >= len(self._outgoing[0]):
            sent -= len(self._outgoing.popleft())
        if sent:
            self._outgoing[0] = memoryview(self._outgoing[0])[sent:]

    def watch(self, epoll: select.epoll) -> None:
        """Let `epoll` report what this lane waits for: to read, and to write when it is behind."""
        mask = select.EPOLLIN | (select.EPOLLOUT if self._outgoing else 0)
        if mask == self._mask:
            return
        if self._mask:
            epoll.modify(self.fd, mask)
        else:
            epoll.register(self.fd, mask)
        self._epoll, self._mask = epoll, mask

    def close(self) -> None:
        """End the lane, also for the peer of a process that was forked while it was open."""
        if self._epoll is not None:
            self._epoll.unregister(self.fd)
            self._epoll = None
        self._close_descriptors()
        self.ended = self.broken = True
        self._outgoing.clear()
        self.pending_bytes = 0
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _enlarge_send_buffer(sock: socket.socket) -> None:
    """Ask for room; for a Unix socket the sender's buffer is what counts."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SOCKET_BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
