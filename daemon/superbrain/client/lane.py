"""One lane of a client: a worker that greets, takes as many requests as its window, and answers.

Nothing here waits. The connection is made before anything is sent over it, and nothing is sent
before the worker's greeting, so a lane that cannot be used costs no request.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from superbrain.client.alike import Last, LastShared
from superbrain.client.ledger import Exchange, Ledger
from superbrain.client.region import REGION_BIT, Region
from superbrain.client.result import Result
from superbrain.transport import flight
from superbrain.transport.brief_wait import CROWDED_NS, BriefWait
from superbrain.transport.descriptor import Descriptor
from superbrain.transport.lane_socket import LaneSocket, Sent
from superbrain.wire import lane
from superbrain.wire.errors import Internal
from superbrain.wire.lane import LaneFrame
from superbrain.wire.messages import UNREADABLE

if TYPE_CHECKING:
    from superbrain.transport._loop import Shortcut
    from superbrain.transport.lane_socket import Asked

MAX_DEADLINE_NS: Final = (1 << 63) - 1
_HELLO = msgspec.json.Decoder(lane.Hello)


class Lane:
    """A connected lane.

    Attributes:
        path: where it was connected to.
        greeted: the worker has said who it is.
        window: how many requests may be outstanding; 0 before it has and when it retires.
        outstanding: what is, by request id.
        socket: the connection; its `ended` says that nothing more will come.
        bounced: requests in shared memory that the worker did not take, to be asked inline.
    """

    def __init__(self, path: str, epoll: select.epoll, wait: BriefWait, ledger: Ledger) -> None:
        """Connect without waiting.

        Args:
            path: of the worker's socket.
            epoll: to which news are reported, once its owner lets `socket` be watched.
            wait: waits on it.
            ledger: gives requests their ids.

        Raises:
            OSError: nobody listens there, or this user may not connect.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        self.path = path
        self.greeted = False
        self.window = 0
        self.outstanding: dict[int, Exchange] = {}
        self.socket = LaneSocket(sock, takes_descriptors=True)
        self._epoll = epoll
        self._wait = wait
        self._ledger = ledger
        self._retired = False
        self._regions: set[int] = set()
        self._refused: set[int] = set()
        self.bounced: list[Exchange] = []
        self._number = 0
        self._flight_page: Descriptor | None = None

    @property
    def free(self) -> bool:
        """Whether one more request may travel here."""
        return len(self.outstanding) < self.window

    def send(self, exchange: Exchange) -> None:
        """Send a request; what the worker does not take yet is sent by `flush`.

        The frame bears its number, so the header holds the name alone and is the same for many.
        """
        self.outstanding[exchange.number] = exchange
        call = exchange.call
        shared = call.shared
        if shared is not None and self._knows(shared.regions):
            header, tensors = shared.header(exchange.name), shared.tensors
        else:
            header, tensors = call.header(exchange.name, 0, False), call.tensors
        link = self.socket
        link.send_frame(
            lane.REQUEST,
            header,
            tensors,
            exchange.number,
            _nanoseconds(exchange.deadline),
            call.priority,
        )
        if link.pending_bytes:
            link.watch(self._epoll)

    @property
    def idle(self) -> bool:
        """Whether a request may travel here, and none does."""
        return self.window > 0 and not self.outstanding

    def ask(
        self, last: Last, inputs: Mapping[str, Any], deadline: float
    ) -> Result | Exchange | None:
        """Send a request while nothing else is under way, and look for its answer.

        Give what was answered, or the exchange that goes on; None when the inputs are not alike.
        A lane that has broken its rules has ended.
        """
        name, number = self._ledger.next_id()
        done = self.socket.ask(
            last.packing,
            inputs,
            last.header(name, 0, False),
            number,
            _nanoseconds(deadline),
            last.answers,
            self._wait.lane_moment_ns,
            CROWDED_NS,
        )
        if done is None:
            return None
        if not isinstance(done, Sent):
            arrays, (_, form) = done
            return Result(form.model_name, form.model_version, arrays, f"{name}-{number}")
        return self._goes_on(last, name, number, deadline, done)

    def shortcut(self, last: Last | LastShared, connection: tuple[object, ...]) -> Shortcut | None:
        """Give the shortcut for requests like one that `ask` has answered.

        Args:
            last: as for `ask`.
            connection: what only that knows: see `Connection`.
        """
        if any(region.number not in self._regions for region in last.regions):
            return None
        name, numbers = self._ledger.ids()
        header = last.header(name, 0, False)
        inputs = last.packing, last.tensors
        parts = *inputs, header, last.answers, numbers, name, last, *connection
        return self.socket.shortcut(parts, self._wait.lane_moment_ns, CROWDED_NS)

    def asked(
        self,
        last: Last | LastShared,
        inputs: Mapping[str, Any],
        number: int,
        deadline: float,
        done: Asked | Exception,
    ) -> Exchange:
        """Give the exchange with which a request goes on that a shortcut has begun."""
        name, _ = self._ledger.ids()
        header = last.header(name, 0, False)
        deadline_ns = _nanoseconds(deadline)
        tensors = last.tensors
        if last.packing is not None:
            tensors = last.packing.pack(inputs)
        sent = self.socket.asked(tensors or [], header, number, deadline_ns, done)
        return self._goes_on(last, name, number, deadline, sent)

    def _goes_on(
        self, last: Last | LastShared, name: str, number: int, deadline: float, done: Sent
    ) -> Exchange:
        exchange = Exchange(last.call_on(done.tensors), deadline)
        exchange.name, exchange.number = name, number
        self.outstanding[number] = exchange
        if self.socket.pending_bytes:
            self.socket.watch(self._epoll)
        if done.frames:
            try:
                self._take(done.frames)
            except lane.LaneError:
                self.socket.ended = True
            if exchange.header is not None:
                with suppress(Internal):  # whoever takes the answer is told
                    last.learn(bytes(exchange.header))
        elif done.crowded is not None:
            self._wait.looked(crowded=done.crowded)
        return exchange

    def flush(self) -> None:
        """Send what the worker has not taken so far."""
        if self.socket.pending_bytes:
            self.socket.flush()
            self.socket.watch(self._epoll)

    def receive(self) -> list[Exchange]:
        """Read what is there; give the exchanges that were answered.

        Raises:
            LaneError: what came is not a worker's; the lane must be closed.
        """
        return self._take(self.socket.receive())

    def look(self) -> list[Exchange]:
        """Read what comes within a moment, if the wait would look; else nothing."""
        return self._take(self._wait.receive(self.socket))

    def _take(self, frames: Sequence[LaneFrame]) -> list[Exchange]:
        answered: list[Exchange] = []
        for frame in frames:
            if frame.request_id & REGION_BIT:
                self._about_region(frame)
            elif frame.kind in {lane.RESPONSE, lane.ERROR}:
                exchange = self.outstanding.get(frame.request_id)
                if exchange is None:
                    continue
                if not exchange.settled:
                    if frame.kind == lane.ERROR and self._has_refused(exchange):
                        self.bounced.append(exchange)
                    elif frame.kind == lane.RESPONSE:
                        exchange.answer(frame.header, frame.tensors)
                        answered.append(exchange)
                    else:
                        exchange.refuse(frame.header)
                        answered.append(exchange)
                del self.outstanding[frame.request_id]
            elif frame.kind == lane.HELLO:
                self._greeted(frame)
            elif frame.kind == lane.GOODBYE:
                self.window = 0
                self._retired = True
            else:
                raise lane.LaneError(f"expected an answer of a worker, found kind {frame.kind}")
        return answered

    def release(self, region: Region) -> None:
        """Let the worker forget a region, if it knows it."""
        if region.number in self._regions:
            self._regions.discard(region.number)
            self.socket.send(region.release())

    def _knows(self, regions: Sequence[Region]) -> bool:
        """Register what the worker does not know yet; whether it may know all of them now.

        It reads in order, so the request may follow at once.
        """
        for region in regions:
            if region.number in self._regions:
                continue
            if region.number in self._refused:
                return False
            if not self.socket.send_descriptor(region.announcement(), region.fd):
                return False
            self._regions.add(region.number)
        return True

    def _about_region(self, frame: LaneFrame) -> None:
        if frame.kind == lane.ERROR:
            number = frame.request_id ^ REGION_BIT
            self._regions.discard(number)
            self._refused.add(number)

    def _has_refused(self, exchange: Exchange) -> bool:
        shared = exchange.call.shared
        return shared is not None and any(one.number in self._refused for one in shared.regions)

    def unanswered(self) -> list[Exchange]:
        """Give what has no answer."""
        left = [*self.outstanding.values(), *self.bounced]
        return [exchange for exchange in left if not exchange.settled]

    def close(self, *, died: bool = True) -> list[Exchange]:
        """End the lane; give what has no answer, which it keeps.

        What the worker was executing if it `died` is now a suspect; where that is not known,
        everything is, unless it had said GOODBYE.
        """
        page = self._flight_page
        executing = flight.executing(None if page is None else page.fd, self._number)
        if not died or (executing is None and self._retired):
            executing = frozenset()
        self.window = 0
        self.socket.close()
        if page is not None:
            page.close()
            self._flight_page = None
        unanswered = self.unanswered()
        for exchange in unanswered:
            exchange.suspect |= executing is None or exchange.number in executing
        return unanswered

    def _greeted(self, frame: LaneFrame) -> None:
        try:
            hello = _HELLO.decode(frame.header)
        except UNREADABLE as error:
            raise lane.LaneError(f"expected the greeting of a worker, found: {error}") from error
        self.greeted = True
        self.window = hello.window
        self._number = hello.lane
        page_fd = self.socket.take_descriptor()
        self._flight_page = None if page_fd is None else Descriptor(page_fd)
        self.socket.takes_descriptors = False


def _nanoseconds(deadline: float) -> int:
    """Give a time of CLOCK_MONOTONIC as a frame has it; 0 for none."""
    deadline_ns = deadline * 1e9  # as `time.monotonic` counts it
    return int(deadline_ns) if deadline_ns < MAX_DEADLINE_NS else 0
