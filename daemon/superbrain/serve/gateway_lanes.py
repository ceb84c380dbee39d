"""The gateway's end of one lane: connect, hear the greeting, send requests, take answers."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from superbrain.serve.directory import ModelRoute, PendingRequest, Slot
from superbrain.transport import flight
from superbrain.transport.frame_writer import encode_frame
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.messages import UNREADABLE

if TYPE_CHECKING:
    import select
    from collections.abc import Sequence

    from superbrain.domain.ctl import LaneAddress
    from superbrain.serve.tally import Tally
    from superbrain.transport._loop import Reader
    from superbrain.wire.lane import Data

    UsualLane = tuple[Reader, dict[int, PendingRequest], ModelRoute["GatewayLane"], Tally]

_HELLO = msgspec.json.Decoder(lane.Hello)


class GatewayLane(Slot):
    """One lane to one worker, on its way for one deployment of one model."""

    def __init__(
        self, address: LaneAddress, route: ModelRoute[GatewayLane], deployment_id: int
    ) -> None:
        """Connect without waiting; nothing may be sent before the greeting.

        Raises:
            OSError: nobody listens there.
        """
        super().__init__(address)
        self.route = route
        self.said_goodbye = False
        self.deployment_id = deployment_id
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(address.path)
        except OSError:
            sock.close()
            raise
        self.link = LaneSocket(sock, takes_descriptors=True)
        self._posted: list[PendingRequest] = []
        self._number = 0
        self._flight_fd: int | None = None

    def post(self, request: PendingRequest) -> bool:
        """Pass a request on with the next `deliver`.

        Returns:
            Whether it is the first since the last `deliver`.
        """
        self._posted.append(request)
        return len(self._posted) == 1

    def deliver(self, epoll: select.epoll) -> None:
        """Send what was posted, all at once."""
        posted, self._posted = self._posted, []
        if len(posted) == 1:
            self.link.send_frame(*_fields(posted[0]))
        else:
            for request in posted:
                self.link.post(encode_frame(*_fields(request)))
            self.link.deliver()
        self._sent(epoll)

    def _sent(self, epoll: select.epoll) -> None:
        if self.link.broken:
            self.retiring = True
        if not self.link.ended:
            self.link.watch(epoll)

    def receive(self) -> list[lane.LaneFrame]:
        """Read on; give the answers that came. Greeting and goodbye are acted on here.

        Raises:
            LaneError: what came is no frame, or none that a worker may send.
        """
        return self._sorted(self.link.receive())

    def received(self, frames: Sequence[lane.LaneFrame]) -> list[lane.LaneFrame]:
        """As `receive`, for what the compiled loop has received."""
        self.link.note_end()
        return self._sorted(frames)

    @property
    def usual(self) -> UsualLane | None:
        """What the compiled loop needs of it; None where answers are not all that is to come."""
        waits = self._posted or self.link.direct_fd < 0 or self.route.waiting
        if waits or self.holds_suspect or not self.ready:
            return None
        return self.link.reader, self.outstanding, self.route, self.route.tally

    def keep(self, written: Sequence[bytes], sent: int, epoll: select.epoll) -> None:
        """Keep what the worker did not take of requests; see `StreamSocket.keep`."""
        self.link.keep(written, sent)
        self._sent(epoll)

    def _sorted(self, frames: Sequence[lane.LaneFrame]) -> list[lane.LaneFrame]:
        answers: list[lane.LaneFrame] = []
        for frame in frames:
            if frame.kind in {lane.RESPONSE, lane.ERROR}:
                answers.append(frame)
            elif frame.kind == lane.HELLO:
                self._greeted(frame)
            elif frame.kind == lane.GOODBYE:
                self.said_goodbye = self.retiring = True
            else:
                raise lane.LaneError(f"expected an answer of a worker, found kind {frame.kind}")
        return answers

    def _greeted(self, frame: lane.LaneFrame) -> None:
        try:
            hello = _HELLO.decode(frame.header)
        except UNREADABLE as error:
            raise lane.LaneError(f"expected the greeting of a worker, found: {error}") from error
        expected, found = self.deployment_id, hello.deployment_id
        if found != expected:
            raise lane.LaneError(
                f"lane {self.address.path}: expected deployment {expected}, found {found}"
            )
        self.window = hello.window
        self._number = hello.lane
        self._flight_fd = self.link.take_descriptor()
        self.link.takes_descriptors = False

    def close(self) -> None:
        """End the lane."""
        self.link.close()
        if self._flight_fd is not None:
            os.close(self._flight_fd)
            self._flight_fd = None

    def executing(self) -> frozenset[int] | None:
        """Give the numbers of the requests that the worker was executing; None: not known."""
        return flight.executing(self._flight_fd, self._number)


def _fields(request: PendingRequest) -> tuple[int, Data, Sequence[Data], int, int, int]:
    """Give a request's frame: header and tensors untouched, behind our own number."""
    return (
        lane.ALONE if request.deaths else lane.FORWARD,
        request.header,
        request.tensors,
        request.number,
        request.deadline_ns,
        request.priority,
    )
