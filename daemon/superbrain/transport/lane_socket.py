"""One end of a lane over a non-blocking Unix stream socket: frames in, frames out, the end of it.

Both ends use it: the worker for whoever asks it, gateway and clients for each worker.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from superbrain.transport import compiled
from superbrain.transport.frame_reader import frame_reader
from superbrain.transport.stream_socket import StreamSocket
from superbrain.wire import lane
from superbrain.wire.lane import LaneError, LaneFrame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superbrain.transport._loop import Reader, Shortcut
    from superbrain.transport.packing import Packing
    from superbrain.wire.datatypes import Array
    from superbrain.wire.lane import Data

    Asked = tuple[list[memoryview], int | None, list[LaneFrame]]

A = TypeVar("A")


class Sent(NamedTuple):
    """A request that was sent, or is kept to be: its tensors, and what came while one looked.

    `crowded`: somebody else wants the processor; None where nobody looked, for not all was sent.
    """

    tensors: list[memoryview]
    frames: list[LaneFrame]
    crowded: bool | None


class LaneSocket(StreamSocket):
    """A connected lane. Not thread-safe.

    Args:
        sock: the connected socket, which belongs to the lane from now on.
        takes_descriptors: whether the peer may send file descriptors; without it the kernel drops
            them, and reading costs a microsecond less. May be changed.
    """

    def __init__(self, sock: socket.socket, *, takes_descriptors: bool = False) -> None:
        super().__init__(sock)
        self.takes_descriptors = takes_descriptors
        self._descriptors: list[int] = []
        self._reader = frame_reader(sock, self._descriptors)
        self._loop = compiled.loop()

    def receive(self) -> list[LaneFrame]:
        """Read what is there, within a fair share; sets `ended` at end of file.

        Raises:
            LaneError: what came is no frame; the lane must be closed.
        """
        if self.ended:
            return []
        reader = self._reader
        try:
            frames = reader.receive(self.fd, self.takes_descriptors)
        except LaneError:
            self._close_descriptors()
            raise
        if reader.ended:
            self.ended = True
        return frames

    @property
    def reader(self) -> Reader:
        """The compiled reader, for the loop that is compiled too."""
        return cast("Reader", self._reader)

    def note_end(self) -> None:
        """Take note of the end, if the compiled loop has read it."""
        if self._reader.ended:
            self.ended = True

    def look(self, moment_ns: int, crowded_ns: int) -> tuple[list[LaneFrame], bool]:
        """Receive, looking for a moment; also, whether somebody else wants the processor.

        Raises:
            LaneError: as `receive`.
        """
        if self.ended:
            return [], False
        reader = self._reader
        try:
            frames = reader.look(self.fd, self.takes_descriptors, moment_ns, crowded_ns)
        except LaneError:
            self._close_descriptors()
            raise
        if reader.ended:
            self.ended = True
        return frames, reader.crowded

    def ask(
        self,
        packing: Packing,
        inputs: Mapping[str, Array],
        header: bytes,
        number: int,
        deadline_ns: int,
        answers: dict[bytes, A],
        moment_ns: int,
        crowded_ns: int,
    ) -> tuple[dict[str, Array], A] | Sent | None:
        """Send a request and look for its answer for a moment, where the loop is compiled.

        Args:
            packing: of the inputs.
            inputs: one array by name for each.
            header: of the request.
            number: its own.
            deadline_ns: 0 for none.
            answers: headers that answers may have; each with something whose first is its packing.
            moment_ns: as for `look`.
            crowded_ns: as for `look`.

        Returns:
            The arrays of the answer and what `answers` has for its header; or how far this came;
            None when nothing was done, because the inputs are not of that packing. Where what came
            is no frame, the lane has `ended`.
        """
        if self._loop is None or self.direct_fd < 0:
            return None
        try:
            done: tuple[dict[str, Array], A] | Asked | None = self._loop.ask(
                self._reader,
                self.fd,
                packing,
                inputs,
                header,
                number,
                deadline_ns,
                answers,
                moment_ns,
                crowded_ns,
            )
        except LaneError as error:
            tensors = packing.pack(inputs) or []
            return self.asked(tensors, header, number, deadline_ns, error)
        if done is None:
            return None
        if len(done) == 2:
            return done[0], done[1]
        return self.asked([], header, number, deadline_ns, done)

    def asked(
        self,
        tensors: list[memoryview],
        header: bytes,
        number: int,
        deadline_ns: int,
        done: Asked | Exception,
    ) -> Sent:
        """Go on where the compiled loop has asked and has no result.

        Args:
            tensors: of the request, for whoever asks elsewhere if it raised.
            header: as for `ask`; so are `number` and `deadline_ns`.
            number: of the request.
            deadline_ns: 0 for none.
            done: how far it came, or what it raised.
        """
        if isinstance(done, Exception):
            self.ended = True
            return Sent(tensors, [], None)
        if self._reader.ended:
            self.ended = True
        tensors, sent, frames = done
        if sent is not None:
            self.keep(
                lane.encode(
                    lane.REQUEST, header, tensors, request_id=number, deadline_ns=deadline_ns
                ),
                sent,
            )
        return Sent(tensors, frames, self._reader.crowded if sent is None else None)

    def shortcut(self, parts: tuple[Any, ...], moment_ns: int, crowded_ns: int) -> Shortcut | None:
        """Give the shortcut for requests like one that has gone by `ask`; its parts are told there.

        None where the loop is not compiled.
        """
        if self._loop is None:
            return None
        made: Shortcut = self._loop.Shortcut((self._reader, *parts), self.fd, moment_ns, crowded_ns)
        return made

    def send_frame(
        self,
        kind: int,
        header: Data,
        tensors: Sequence[Data],
        request_id: int,
        deadline_ns: int = 0,
        priority: int = 0,
    ) -> None:
        """Send one frame, or keep what the peer does not take yet; as `send` of its encoding."""
        sent: int | None = 0
        if self._loop is not None and not self._outgoing and not self.broken:
            sent = self._loop.send(
                self.fd, kind, priority, request_id, deadline_ns, header, tensors
            )
            if sent is None:
                return
        buffers = lane.encode(
            kind,
            header,
            tensors,
            request_id=request_id,
            deadline_ns=deadline_ns,
            priority=priority,
        )
        if sent:
            self.keep(buffers, sent)
        else:
            self.send(buffers)

    @property
    def direct_fd(self) -> int:
        """The descriptor for who sends by itself; -1 while something else has to be sent first."""
        if self._outgoing or self._posted or self.broken or self.ended:
            return -1
        return self.fd

    def take_descriptor(self) -> int | None:
        """Give the oldest descriptor that no frame has claimed; it is the caller's to close."""
        return self._descriptors.pop(0) if self._descriptors else None

    def close_unasked(self) -> None:
        """Close descriptors that no frame has claimed, unless their frame is still on its way."""
        if self._descriptors and self._reader.between_frames:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def close(self) -> None:
        """End the lane, also for the peer of a process that was forked while it was open."""
        self._close_descriptors()
        super().close()
