"""The gateway's directory: which deployment answers for a model, who waits, who travels where.

Pure bookkeeping, no sockets and no clock. For every model:

- Requests wait in one bounded queue and are bound late: a lane never has more outstanding than
  the window its worker announced.
- A lane that ends with GOODBYE gives its unanswered requests back to the queue, at their old place.
- A lane that ends without it means that its worker died: what the worker was executing is now a
  *suspect*, and where that is not known everything unanswered. A suspect travels alone, on a lane
  with nothing else outstanding, so that a second death blames only the one. A request that has
  ended `FATAL_DEATHS` workers is poison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from superbrain.serve.admission import AdmissionQueue
from superbrain.serve.tally import Tally
from superbrain.wire.errors import NotFound, RequestError, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from superbrain.domain.ctl import LaneAddress, Route
    from superbrain.domain.records import SpanRecord
    from superbrain.serve.peer import Envelope
    from superbrain.wire.lane import Data

FATAL_DEATHS = 2
_NAMES_SHOWN = 20


class PendingRequest:
    """One inference request between its arrival and its answer.

    `span`: its place in a trace, if it is in one that is recorded.
    """

    __slots__ = (
        "arrived_ns",
        "deadline_ns",
        "deaths",
        "envelope",
        "header",
        "id",
        "number",
        "priority",
        "span",
        "tensors",
        "version",
    )

    def __init__(  # noqa: PLR0913 - one per field
        self,
        number: int,
        envelope: Envelope,
        header: Data,
        tensors: Sequence[Data],
        *,
        id: str = "",
        version: str = "",
        priority: int = 0,
        arrived_ns: int = 0,
        deadline_ns: int = 0,
        deaths: int = 0,
    ) -> None:
        self.number = number
        self.envelope = envelope
        self.header = header
        self.tensors = tensors
        self.id = id
        self.version = version
        self.priority = priority
        self.arrived_ns = arrived_ns
        self.deadline_ns = deadline_ns
        self.deaths = deaths
        self.span: SpanRecord | None = None


class Slot:
    """A lane as the directory sees it: how much may travel on it, and what does."""

    def __init__(self, address: LaneAddress) -> None:
        self.address = address
        self.window = 0  # nothing may travel before the worker's greeting
        self.retiring = False
        self.outstanding: dict[int, PendingRequest] = {}
        self.holds_suspect = False

    @property
    def ready(self) -> bool:
        """Whether a worker has greeted here and still takes requests."""
        return self.window > 0 and not self.retiring


SlotT = TypeVar("SlotT", bound=Slot)


class ModelRoute(Generic[SlotT]):
    """Traffic of one model."""

    def __init__(self, route: Route) -> None:
        self.name = route.model
        self.slots: list[SlotT] = []
        self.waiting: AdmissionQueue[PendingRequest] = AdmissionQueue(route.queue_size)
        self.tally = Tally()  # of answers that were passed on
        self.requests = 0
        self.answered = 0
        self.errors = 0
        self.redispatched = 0
        self.abandoned = 0  # dropped while they waited, as their client had gone
        self._take_over(route)

    def _take_over(self, route: Route) -> None:
        self.version = route.version
        self.deployment_id = route.deployment_id
        self.metadata = route.metadata
        self.timeout_ms = route.request_timeout_ms
        self.reason = route.reason
        self.why_waiting = route.waiting
        self.waiting.size = route.queue_size

    @property
    def ready(self) -> bool:
        """Whether a proven process serves the model right now."""
        return not self.reason and any(slot.ready for slot in self.slots)

    @property
    def outstanding(self) -> int:
        """How many requests travel."""
        return sum(len(slot.outstanding) for slot in self.slots)

    def admit(self, request: PendingRequest) -> None:
        """Let a request wait for its turn.

        Raises:
            NotFound: it asks for another version than the one that serves.
            Unavailable: nobody can serve the model, and waiting would not help.
            ResourceExhausted: too many wait already.
        """
        self.requests += 1
        self._check(request)
        try:
            self.waiting.push(
                request,
                arrival=request.number,
                priority=request.priority,
                deadline_ns=request.deadline_ns,
            )
        except ResourceExhausted as error:
            if not self.why_waiting:
                raise
            message = f"{error.message}; {self.why_waiting}"
            raise ResourceExhausted(message, mend=error.mend) from error

    def _check(self, request: PendingRequest) -> None:
        if request.version and request.version != self.version:
            raise NotFound(
                f"model {self.name!r}: expected version {self.version!r}, the one that serves, "
                f"found {request.version[:100]!r}",
                mend="Leave model_version out to take whichever serves",
            )
        if self.reason:
            raise Unavailable(f"model {self.name!r} is not served: {self.reason}")

    def next_dispatch(self) -> tuple[SlotT, PendingRequest] | None:
        """Bind the next waiting request to the lane with the least outstanding, if one is free."""
        request = self.waiting.first()
        if request is None:
            return None
        slot = self._free_slot(alone=request.deaths > 0)
        if slot is None:
            return None
        self.waiting.take()
        slot.outstanding[request.number] = request
        slot.holds_suspect = request.deaths > 0
        return slot, request

    def _free_slot(self, *, alone: bool) -> SlotT | None:
        best: SlotT | None = None
        least = 1 if alone else 1 << 30
        for slot in self.slots:
            count = len(slot.outstanding)
            if count < least and count < slot.window and not (slot.retiring or slot.holds_suspect):
                best, least = slot, count
        return best

    def take_answered(self, slot: SlotT, number: int) -> PendingRequest | None:
        """Take the request that `number` answers; None when nobody waits for it any more."""
        request = slot.outstanding.pop(number, None)
        if not slot.outstanding:
            slot.holds_suspect = False
        return request

    def slot_ended(
        self, slot: SlotT, *, died: bool, executing: Collection[int] | None = None
    ) -> list[PendingRequest]:
        """Forget a lane; give the requests that are poison, the others wait again.

        Args:
            slot: the lane that ended.
            died: whether the worker ended without GOODBYE.
            executing: numbers of the requests it was executing then; None when that is not known.
        """
        if slot in self.slots:
            self.slots.remove(slot)
        unanswered = list(slot.outstanding.values())
        slot.outstanding.clear()
        slot.holds_suspect = False
        slot.retiring = True  # it may have been about to join
        poison: list[PendingRequest] = []
        for request in unanswered:
            request.deaths += died and (executing is None or request.number in executing)
            if request.deaths >= FATAL_DEATHS:
                poison.append(request)
                continue
            self.redispatched += 1
            self.waiting.put_back(
                request,
                arrival=request.number,
                priority=request.priority,
                deadline_ns=request.deadline_ns,
            )
        return poison

    def flip(self, route: Route) -> list[tuple[PendingRequest, RequestError]]:
        """Let `route` answer from now on; give those waiting whom it cannot serve, and why."""
        self._take_over(route)
        rejected: list[tuple[PendingRequest, RequestError]] = []
        for request in self.waiting.clear():
            try:
                self._check(request)
            except RequestError as error:
                rejected.append((request, error))
            else:
                self.waiting.put_back(
                    request,
                    arrival=request.number,
                    priority=request.priority,
                    deadline_ns=request.deadline_ns,
                )
        return rejected


class Directory(Generic[SlotT]):
    """All models by name."""

    def __init__(self) -> None:
        self._routes: dict[str, ModelRoute[SlotT]] = {}

    def __iter__(self) -> Iterator[ModelRoute[SlotT]]:
        return iter(self._routes.values())

    def find(self, model: str) -> ModelRoute[SlotT]:
        """Find who answers for `model`.

        Raises:
            NotFound: nobody does.
        """
        route = self._routes.get(model)
        if route is None:
            raise self.unknown(model)
        return route

    def unknown(self, model: str) -> NotFound:
        """Say that nobody answers for `model`, and who is there instead."""
        names = sorted(self._routes)
        known = ", ".join(map(repr, names[:_NAMES_SHOWN])) or "none"
        more = ", …" if len(names) > _NAMES_SHOWN else ""
        return NotFound(
            f"expected a model among those served ({known}{more}), found {model[:100]!r}"
        )

    def enter(self, route: Route) -> ModelRoute[SlotT]:
        """Find the model that `route` is about; an unknown one is entered."""
        known = self._routes.get(route.model)
        if known is None:
            known = self._routes[route.model] = ModelRoute(route)
        return known

    def remove(self, model: str) -> ModelRoute[SlotT] | None:
        """Forget a model."""
        return self._routes.pop(model, None)
