"""The gateway's hot path: a client's request to a lane, a lane's answer to the client.

Nothing here waits, logs or locks. Headers and tensors pass through untouched; of a request only
the routing fields are decoded.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.ctl import GatewayPong, LaneAddress, LaneLost, ModelTraffic, Poisoned
from superbrain.serve.admission import NEVER_NS
from superbrain.serve.directory import FATAL_DEATHS, Directory, ModelRoute, PendingRequest
from superbrain.serve.gateway_lanes import GatewayLane
from superbrain.serve.gateway_records import with_traceparent
from superbrain.serve.queries import Queries
from superbrain.wire import lane
from superbrain.wire.errors import DeadlineExceeded, Internal, InvalidArgument, RequestError
from superbrain.wire.messages import (
    ERROR,
    INFER,
    RESULT,
    Routing,
    decode_header,
    encode_error,
    salvage_id,
)
from superbrain.wire.naming import without_id

if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Sequence

    from superbrain.serve.front import Front
    from superbrain.serve.gateway_lanes import UsualLane
    from superbrain.serve.gateway_records import GatewayRecords
    from superbrain.serve.peer import ClientMessage, Peer

    # How requests that are alike are passed on: nanoseconds they may take, priority, version, the
    # model's route, and its lanes: what travels there, how much may, the descriptor.
    Way = tuple[
        int,
        int,
        str,
        ModelRoute[GatewayLane],
        tuple[tuple[dict[int, PendingRequest], int, int], ...],
    ]

_ROUTING = msgspec.json.Decoder(Routing)
_MOST_WAYS = 256
_LONGEST_KEPT_BYTES = 4096


class Traffic:
    """Everything that travels, and where."""

    def __init__(
        self,
        front: Front,
        epoll: select.epoll,
        tell: Callable[[Poisoned | LaneLost], None],
        records: GatewayRecords | None = None,
    ) -> None:
        self.directory: Directory[GatewayLane] = Directory()
        self.malformed = 0
        self.wake_ns = 0  # no waiting request expires before; then `expire` is due
        self._reply = front.reply
        self._front = front
        front.on_gone = self.forget
        self._epoll = epoll
        self._tell = tell
        self._records = records
        self._queries = Queries(self.directory)
        self._lanes: dict[int, GatewayLane] = {}
        self._posted: list[GatewayLane] = []
        self.numbers = count(1)
        # What the compiled loop knows: lanes on which nothing waits, and how to pass requests on
        # that bear a header like one before. Made anew by `settle` when anything has changed.
        self.usual: dict[int, UsualLane] = {}
        self.ways: dict[bytes, Way] = {}
        self._settled = False
        self.relayed = False  # whether there is a compiled loop to tell

    # --- clients ------------------------------------------------------------------------------

    def submit(self, message: ClientMessage) -> None:
        """Pass an inference request on, or answer it; answer every other verb at once."""
        if message.verb != INFER:
            self._reply(message.envelope, *self._queries.answer(message))
            return
        now_ns = time.monotonic_ns()
        try:
            routing = decode_header(message.header, _ROUTING, "an inference request")
        except InvalidArgument as error:
            self.malformed += 1
            header = encode_error(error, salvage_id(message.header))
            self._reply(message.envelope, ERROR, header)
            self._unroutable(message, Routing("", salvage_id(message.header)), now_ns, error)
            return
        try:
            route = self.directory.find(routing.model_name)
        except RequestError as error:
            self._reply(message.envelope, ERROR, encode_error(error, routing.id))
            self._unroutable(message, routing, now_ns, error)
            return
        parameters = routing.parameters
        request = PendingRequest(
            next(self.numbers),
            message.envelope,
            message.header,
            message.tensors,
            id=routing.id,
            version=routing.model_version,
            priority=parameters.priority,
            arrived_ns=now_ns,
            deadline_ns=now_ns + (parameters.timeout_ms or route.timeout_ms) * 1_000_000,
            deaths=int(parameters.suspect),
        )
        if self._records is not None:
            request.span = self._records.trace(parameters.traceparent)
            if request.span is not None:
                request.header = with_traceparent(request.header, request.span)
        try:
            route.admit(request)
        except RequestError as error:
            self.fail(route, request, error)
            return
        self.pump(route)
        if route.waiting:
            self.wake_ns = min(self.wake_ns, request.deadline_ns)
        if route.waiting or request.deaths:
            self._settled = False
        elif self.relayed and request.span is None:
            self._learn(route, request)

    def _learn(self, route: ModelRoute[GatewayLane], request: PendingRequest) -> None:
        """Let requests like this one, which goes at once, be passed on by the compiled loop."""
        header, name = without_id(bytes(request.header))
        told = self._records is not None and self._records.traces
        if told or not name or name != request.id.encode() or len(header) > _LONGEST_KEPT_BYTES:
            return
        slots = tuple(
            (slot.outstanding, slot.window, slot.link.fd) for slot in route.slots if slot.ready
        )
        if len(self.ways) >= _MOST_WAYS:
            self.ways.clear()
        timeout_ns = request.deadline_ns - request.arrived_ns
        self.ways[header] = timeout_ns, request.priority, request.version, route, slots

    def unsettle(self) -> None:
        """Take note that lanes or routes have changed."""
        self._settled = False

    def settle(self) -> None:
        """Let the compiled loop know what it may do now, if anything has changed."""
        if self._settled:
            return
        self._settled = True
        self.ways.clear()
        self.usual.clear()
        for fd, slot in self._lanes.items():
            usual = slot.usual
            if usual is not None:
                self.usual[fd] = usual

    def forget(self, peer: Peer) -> None:
        """Drop the waiting requests of a client that has gone: nobody wants their answers."""
        for route in self.directory:
            if route.waiting:
                gone = route.waiting.withdraw(lambda request: request.envelope.peer is peer)
                route.abandoned += len(gone)

    def fail(
        self, route: ModelRoute[GatewayLane], request: PendingRequest, error: RequestError
    ) -> None:
        """Answer a request with an error."""
        route.errors += 1
        self._reply(request.envelope, ERROR, encode_error(error, request.id))
        if self._records is not None:
            self._records.refused(route.name, request, error)

    def _unroutable(
        self, message: ClientMessage, routing: Routing, now_ns: int, error: RequestError
    ) -> None:
        """Tell of a request that cannot be read, or for a model that nobody answers for."""
        if self._records is not None:
            request = PendingRequest(
                0, message.envelope, message.header, (), id=routing.id, arrived_ns=now_ns
            )
            request.span = self._records.trace(routing.parameters.traceparent)
            self._records.refused(routing.model_name, request, error)

    def expire(self, now_ns: int) -> None:
        """Answer every waiting request whose deadline has passed; set `wake_ns` anew."""
        self.wake_ns = NEVER_NS
        self._settled = False
        for route in self.directory:
            for request in route.waiting.expired(now_ns):
                self.fail(route, request, _too_late(route, request, now_ns))
                if request.deaths:
                    self._poisoned(route, request)
            self.wake_ns = min(self.wake_ns, route.waiting.earliest_deadline_ns)

    # --- lanes --------------------------------------------------------------------------------

    def open_lane(
        self, address: LaneAddress, route: ModelRoute[GatewayLane], deployment_id: int
    ) -> GatewayLane:
        """Connect to a worker.

        Raises:
            OSError: nobody listens there.
        """
        link = GatewayLane(address, route, deployment_id)
        self._lanes[link.link.fd] = link
        self._settled = False
        link.link.watch(self._epoll)
        return link

    def pump(self, route: ModelRoute[GatewayLane]) -> None:
        """Send waiting requests on their way, as far as lanes are free."""
        while (bound := route.next_dispatch()) is not None:
            slot, request = bound
            if slot.post(request):
                self._posted.append(slot)

    def deliver(self) -> None:
        """Send what this turn has for the workers: to each of them all at once."""
        for slot in self._posted:
            slot.deliver(self._epoll)
            if slot.link.direct_fd < 0:
                self._settled = False
        self._posted.clear()

    def keep(self, fd: int, written: Sequence[bytes], sent: int) -> None:
        """Keep what a worker did not take of requests; see `StreamSocket.keep`."""
        self._lanes[fd].keep(written, sent, self._epoll)
        self._settled = False

    def lane_ready(
        self, fd: int, received: Exception | Sequence[lane.LaneFrame] | None = None
    ) -> None:
        """Read answers from a lane and pass them on; take note of its end.

        Args:
            fd: of the lane.
            received: what the compiled loop has read already, and has left.
        """
        slot = self._lanes.get(fd)
        if slot is None:  # ended earlier in the same turn
            return
        self._settled = False
        try:
            if isinstance(received, Exception):
                raise received
            answers = slot.receive() if received is None else slot.received(received)
        except lane.LaneError as error:
            self.malformed += 1
            self._lost(slot, str(error))
            self.end_lane(slot, died=True, torn=True)
            return
        for frame in answers:
            self._pass_on(slot, frame)
        if slot.link.ended:
            if not slot.said_goodbye:
                self._lost(slot)
            # Who says GOODBYE still finishes what has come, and may die of it.
            self.end_lane(slot, died=not slot.said_goodbye or bool(slot.executing()))
            return
        slot.link.flush()
        slot.link.watch(self._epoll)
        self.pump(slot.route)

    def _pass_on(self, slot: GatewayLane, frame: lane.LaneFrame) -> None:
        route = slot.route
        request = route.take_answered(slot, frame.request_id)
        if request is None:
            return
        if frame.kind == lane.RESPONSE:
            route.answered += 1
            verb = RESULT
        else:
            route.errors += 1
            verb = ERROR
        self._reply(request.envelope, verb, frame.header, frame.tensors)
        if request.span is not None and self._records is not None:
            error = frame.header if verb == ERROR else None
            self._records.passed_on(route.name, request, error)
        route.tally.add_whole(request.arrived_ns, time.monotonic_ns())

    def _lost(self, slot: GatewayLane, reason: str = "") -> None:
        """Let the daemon know: if the worker has not died, it wants another lane to it."""
        if slot.ready:
            self._tell(LaneLost(slot.route.name, slot.address.worker_id, reason))

    def end_lane(self, slot: GatewayLane, *, died: bool, torn: bool = False) -> None:
        """Close a lane; what it has not answered waits again, or is poison.

        Where it is `torn`, the answer to any of that may be what tore it.
        """
        if self._lanes.get(slot.link.fd) is slot:  # else its number is somebody else's already
            del self._lanes[slot.link.fd]
            self.usual.pop(slot.link.fd, None)
        self._settled = False
        executing = slot.executing() if died and not torn else None
        slot.close()
        route = slot.route
        for request in route.slot_ended(slot, died=died, executing=executing):
            error = Internal(
                f"this request ended {FATAL_DEATHS} workers of model {route.name!r} and is not "
                "tried again",
                mend="Look for what is unusual about its input; the daemon has recorded it",
            )
            self.fail(route, request, error)
            self._poisoned(route, request)
        self.wake_ns = 0
        self.pump(route)

    def _poisoned(self, route: ModelRoute[GatewayLane], request: PendingRequest) -> None:
        poisoned = Poisoned(route.name, route.deployment_id, request.id, request.deaths)
        self._tell(poisoned)

    # --- figures ------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing travels and nothing waits."""
        return not any(route.outstanding or route.waiting for route in self.directory)

    def pong(self) -> GatewayPong:
        """Give the figures as the daemon wants them."""
        models = [_model_traffic(route) for route in self.directory]
        return GatewayPong(models, self.malformed, self._front.given_up)


def _model_traffic(route: ModelRoute[GatewayLane]) -> ModelTraffic:
    passed_on = route.tally.totals()
    return ModelTraffic(
        model=route.name,
        requests=route.requests,
        answered=route.answered,
        errors=route.errors,
        waiting=len(route.waiting),
        outstanding=route.outstanding,
        redispatched=route.redispatched,
        latency_ms=passed_on.quantiles(),
        latency=passed_on.histograms()[0],
        workers=[slot.address.worker_id for slot in route.slots if slot.ready],
    )


def _too_late(
    route: ModelRoute[GatewayLane], request: PendingRequest, now_ns: int
) -> DeadlineExceeded:
    model = route.name
    waited_ms = (now_ns - request.arrived_ns) / 1e6
    if request.deaths:
        return DeadlineExceeded(
            f"expected an answer before the deadline, but a worker of model {model!r} hung or "
            f"died while it executed this request, and its time is over after {waited_ms:.0f} ms",
            mend="Look for what is unusual about its input; the daemon has recorded it",
        )
    why = f": {route.why_waiting}" if route.why_waiting else ""
    return DeadlineExceeded(
        f"expected to start before the deadline, found no worker of model {model!r} free within "
        f"{waited_ms:.0f} ms{why}",
        mend="Try again a little later, or allow it more time (timeout_ms)" if why else "",
    )
