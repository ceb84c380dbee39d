"""Frames out of a connected lane: what both twins of the reader promise, and the one in Python."""

from __future__ import annotations

import array
import os
import socket
import time
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from superbrain.transport import compiled
from superbrain.transport.stream_socket import of_the_kernel
from superbrain.wire.lane import LaneDecoder, LaneError, LaneFrame
from superbrain.wire.messages import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

_READS_PER_TURN: Final = 4  # the head of a large frame, its body; then others get their turn
_MAX_DESCRIPTORS: Final = 4
# The enums of `socket` cost a microsecond each time they are combined.
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED: Final = int(socket.MSG_CTRUNC)
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)


class FrameReader(Protocol):
    """Receives frames, and descriptors into the list that it was made with. Not thread-safe."""

    @property
    def ended(self) -> bool:
        """Whether the end of the lane was read."""

    @property
    def crowded(self) -> bool:
        """Whether the last `look` was given up, because somebody else wants the processor."""

    @property
    def between_frames(self) -> bool:
        """Whether no part of a frame has been received that is not whole."""

    def receive(self, fd: int, takes_descriptors: bool, /) -> list[LaneFrame]:  # noqa: FBT001
        """Read what is there, within a fair share.

        Args:
            fd: of the connected socket.
            takes_descriptors: whether the peer may send some; else the kernel drops them.

        Raises:
            LaneError: what came is no frame, or too many descriptors; the lane must be closed.
        """

    def look(
        self,
        fd: int,
        takes_descriptors: bool,  # noqa: FBT001
        moment_ns: int,
        crowded_ns: int,
        /,
    ) -> list[LaneFrame]:
        """Look until something has come, for a moment at most, and give way in between.

        Args:
            fd: as for `receive`.
            takes_descriptors: as for `receive`.
            moment_ns: so long.
            crowded_ns: who gives way for longer than this is `crowded` and looks no more.

        Raises:
            LaneError: as `receive`.
        """


def frame_reader(sock: socket.socket, descriptors: list[int]) -> FrameReader:
    """Make the reader of a lane: the compiled one where there is one."""
    module = compiled.loop()
    if module is None:
        return PythonReader(sock, descriptors)
    reader: FrameReader = module.Reader(MAX_MESSAGE_BYTES, _room, LaneError, descriptors)
    return reader


def _room(size: int) -> memoryview:
    return np.empty(size, np.uint8).data  # not filled with zeros first


class PythonReader:
    """The twin of the compiled reader."""

    def __init__(self, sock: socket.socket, descriptors: list[int]) -> None:
        self.ended = False
        self.crowded = False
        self._socket = sock
        self._descriptors = descriptors
        self._decoder = LaneDecoder(MAX_MESSAGE_BYTES)

    @property
    def between_frames(self) -> bool:
        return self._decoder.between_frames

    def receive(self, _fd: int, takes_descriptors: bool, /) -> list[LaneFrame]:  # noqa: FBT001
        frames: list[LaneFrame] = []
        for _ in range(_READS_PER_TURN):
            room = self._decoder.buffer()
            try:
                count = (self._read if takes_descriptors else self._socket.recv_into)(room)
            except BlockingIOError:
                break
            except OSError as error:  # a reset comes after everything that was sent before it
                if not of_the_kernel(error):
                    raise
                count = 0
            if not count:
                self.ended = True
                break
            frames += self._decoder.received(count)
            if frames or count < len(room):
                break
        return frames

    def look(
        self,
        fd: int,
        takes_descriptors: bool,  # noqa: FBT001
        moment_ns: int,
        crowded_ns: int,
        /,
    ) -> list[LaneFrame]:
        now_ns = time.monotonic_ns()
        until_ns = now_ns + moment_ns
        self.crowded = False
        while True:
            frames = self.receive(fd, takes_descriptors)
            if frames or self.ended or not self.between_frames:
                return frames
            if now_ns >= until_ns or self.crowded:
                return frames
            before_ns = now_ns
            os.sched_yield()
            now_ns = time.monotonic_ns()
            self.crowded = now_ns - before_ns > crowded_ns

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
            raise LaneError(
                f"expected at most {_MAX_DESCRIPTORS} descriptors that no frame has claimed, "
                "found more"
            )
