"""One end of a lane over a non-blocking Unix stream socket: frames in, frames out, the end of it.

Both ends use it: the worker for whoever asks it, gateway and clients for each worker.
"""

from __future__ import annotations

import array
import os
import socket
from typing import TYPE_CHECKING

from superbrain.transport.stream_socket import StreamSocket
from superbrain.wire.lane import LaneDecoder, LaneError, LaneFrame
from superbrain.wire.messages import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

_READS_PER_TURN = 4  # the head of a large frame, its body; then others get their turn
_MAX_DESCRIPTORS = 4
# The enums of `socket` cost a microsecond each time they are combined.
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_CTRUNC)
_CONTROL_BYTES = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)


class LaneSocket(StreamSocket):
    """A connected lane. Not thread-safe.

    Args:
        sock: the connected socket, which belongs to the lane from now on.
        takes_descriptors: whether the peer may send file descriptors; without it the kernel drops
            them, and reading costs a microsecond less. May be changed.
    """

    def __init__(self, sock: socket.socket, *, takes_descriptors: bool = False) -> None:
        super().__init__(sock)
        self._decoder = LaneDecoder(MAX_MESSAGE_BYTES)
        self.takes_descriptors = takes_descriptors
        self._descriptors: list[int] = []

    def receive(self) -> list[LaneFrame]:
        """Read what is there, within a fair share; sets `ended` at end of file.

        Raises:
            LaneError: what came is no frame; the lane must be closed.
        """
        frames: list[LaneFrame] = []
        for _ in range(_READS_PER_TURN):
            room = self._decoder.buffer()
            try:
                count = (self._read if self.takes_descriptors else self._socket.recv_into)(room)
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
        count, control, flags, _ = self._socket.recvmsg_into((room,), _CONTROL_BYTES, _CLOEXEC)
        if control or flags & _TRUNCATED:
            self._keep(control, truncated=bool(flags & _TRUNCATED))
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

    def close(self) -> None:
        """End the lane, also for the peer of a process that was forked while it was open."""
        self._close_descriptors()
        super().close()
