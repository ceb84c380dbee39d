"""A worker's end of a lane: frames as on any lane, and the shared memory that its peer registers.

REGION and RELEASE are answered here and at once, in the order in which they came. They never wait
in the queue, so a request that still waits when its region is released is refused.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from superbrain.serve.regions import RegionBudget, Regions
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.errors import RequestError
from superbrain.wire.messages import encode_error

if TYPE_CHECKING:
    import socket

    from superbrain.serve.request_form import Usual
    from superbrain.transport._loop import Reader

    UsualLane = tuple[Reader, int, dict[bytes, Usual]]

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

    @property
    def usual(self) -> UsualLane | None:
        """What the compiled loop needs of it; None while something waits to be sent, or it ends."""
        if self.direct_fd < 0:
            return None
        return self.reader, self.number, self.regions.usual

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
