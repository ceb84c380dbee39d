"""A worker's end of a lane: frames as on any lane, and the shared memory that its peer registers.

REGION and RELEASE are answered here and at once, in the order in which they came. They never wait
in the queue, so a request that still waits when its region is released is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, cast

from superbrain.serve.regions import RegionBudget, Regions
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.errors import RequestError
from superbrain.wire.lane import LaneError
from superbrain.wire.messages import encode_error

if TYPE_CHECKING:
    import socket
    from typing import Any

    from superbrain.serve.request_form import Usual
    from superbrain.transport._loop import Express, Reader
    from superbrain.wire.lane import LaneFrame

    Executed = tuple[LaneFrame, int, int | tuple[bytes, int] | tuple[bool, Any, int, int]]

SHARING: Final = frozenset({lane.REGION, lane.RELEASE})


class WorkerLane(LaneSocket):
    """A lane and the shared memory that its peer has registered on it.

    `number` is unique in this process; the flight page names lanes by it.
    """

    def __init__(
        self, sock: socket.socket, number: int, budget: RegionBudget | None = None
    ) -> None:
        super().__init__(sock, takes_descriptors=True)
        self.number = number
        self.regions = Regions(budget)

    def turn(
        self, express: Express, forms: dict[bytes, Usual], *, answers: bool
    ) -> list[LaneFrame] | Executed:
        """Receive, and let `express` execute and answer a usual request that comes alone.

        For a lane with a `direct_fd`, while nothing else is to be done.

        Args:
            express: the worker's.
            forms: of usual requests, by header.
            answers: send the answer; else it is given as bytes.

        Returns:
            The frames that came; or the one that was executed, when it came, and how that ended.

        Raises:
            LaneError: as `receive`.
        """
        reader = self._reader
        try:
            done: list[LaneFrame] | Executed = express.turn(
                cast("Reader", reader),
                self.fd,
                self.takes_descriptors,
                self.number,
                forms,
                self.regions.usual,
                answers,
            )
        except LaneError:
            self._close_descriptors()
            raise
        if reader.ended:
            self.ended = True
        return done

    def share(self, frame: lane.LaneFrame) -> None:
        """Register or release a region as a frame says, and answer it."""
        try:
            if frame.kind == lane.REGION:
                self._register(frame)
            else:
                self.regions.release(frame.header)
        except RequestError as error:
            header = encode_error(error)
            self.send(lane.encode(lane.ERROR, header, request_id=frame.request_id))
        else:
            self.send(lane.encode(frame.kind, request_id=frame.request_id))

    def _register(self, frame: lane.LaneFrame) -> None:
        fd = self.take_descriptor()
        try:
            self.regions.register(frame.header, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def close(self) -> None:
        """End the lane; its memory is unmapped as soon as no tensor in it is used any more."""
        self.regions.close()
        super().close()
