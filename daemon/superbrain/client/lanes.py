"""The fast road: a model's lanes, asked of the gateway, used as long as they last.

The gateway's road is always right, and lanes are a way around it. So whatever is unusual goes
through the gateway, which knows how to wait: the first request of a model, everything while no lane
has greeted, and what a lane left unanswered when it ended. Meanwhile the lanes are asked for anew.
Requests wait here only for room on a lane that works.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from superbrain.client import calls
from superbrain.client.alike import Last, LastShared
from superbrain.client.lane import Lane
from superbrain.client.ledger import Exchange, Ledger
from superbrain.client.region import Region
from superbrain.client.result import Result
from superbrain.transport.brief_wait import BriefWait
from superbrain.transport.stream_socket import of_the_kernel
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.lane import LaneError
from superbrain.wire.messages import Resolved

if TYPE_CHECKING:
    from superbrain.transport._loop import Shortcut
    from superbrain.transport.lane_socket import Asked

# When to ask for lanes again: soon after an end, for most ends are swaps; and when none could be
# used, or fewer than before, which is no hurry.
SOON_S: Final = 0.005
LATER_S: Final = 1.0
LONG_S: Final = 5.0
_NEVER: Final = float("inf")


class ModelLanes:
    """The lanes of one model, and who waits for room on them."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.lanes: list[Lane] = []
        self.asks_at = 0.0  # when a request next makes us ask for lanes; `_NEVER` while we ask
        self.uses = 0
        self.had = 0  # lanes before a crash, which are to come back
        self._waiting: list[tuple[int, int, Exchange]] = []

    def free_lane(self) -> Lane | None:
        """Give the lane with the least outstanding, if one has room."""
        lanes = self.lanes
        if len(lanes) == 1:
            return lanes[0] if lanes[0].free else None
        return min(
            (lane for lane in lanes if lane.free),
            key=lambda lane: len(lane.outstanding),
            default=None,
        )

    @property
    def usable(self) -> bool:
        """Whether any lane takes requests, now or when it has answered some."""
        return any(lane.window for lane in self.lanes)

    @property
    def waits(self) -> bool:
        """Whether anybody waits for room."""
        return bool(self._waiting)

    def wait(self, exchange: Exchange) -> None:
        """Line up for a lane with room."""
        heapq.heappush(self._waiting, (-exchange.call.priority, exchange.number, exchange))

    def next(self) -> Exchange | None:
        """Give whose turn it is until it has `left`; who has an outcome has been given up."""
        while self._waiting:
            exchange = self._waiting[0][2]
            if not exchange.settled:
                return exchange
            self.left()
        return None

    def left(self) -> None:
        """Let whose turn it was wait no more: it is somewhere else now."""
        heapq.heappop(self._waiting)

    def unanswered(self) -> list[Exchange]:
        """Give what has no outcome: on lanes, and who waits for room."""
        waiting = [exchange for _, _, exchange in self._waiting if not exchange.settled]
        return sum((lane.unanswered() for lane in self.lanes), waiting)


class Lanes:
    """Lanes by model, on the epoll of the link that owns them.

    Args:
        epoll: to which news of lanes are reported.
        wait: waits on it.
        ledger: gives requests their ids.
        overdue: makes the error of an exchange whose deadline has passed.
    """

    def __init__(
        self,
        epoll: select.epoll,
        wait: BriefWait,
        ledger: Ledger,
        overdue: Callable[[Exchange], SuperbrainError],
    ) -> None:
        self._epoll = epoll
        self._wait = wait
        self._ledger = ledger
        self._overdue = overdue
        self._models: dict[str, ModelLanes] = {}
        self._by_fd: dict[int, tuple[ModelLanes, Lane]] = {}
        self._asking: dict[Exchange, ModelLanes] = {}
        self._latest: tuple[ModelLanes, Lane] | None = None  # where the last request was sent
        self.questions: list[Exchange] = []  # for the gateway; the link sends and clears them
        self.returned: list[Exchange] = []  # what has to go through the gateway; likewise

    def take(self, exchange: Exchange) -> bool:
        """Send a request over a lane, or keep it until one has room; false: not by lanes."""
        model = self._models.get(exchange.call.model)
        if model is None:
            model = self._models[exchange.call.model] = ModelLanes(exchange.call.model)
        lane = model.free_lane()
        if lane is not None and not model.waits and not exchange.suspect:
            if model.asks_at != _NEVER:
                self._ask(model)
            self._latest = model, lane
            lane.send(exchange)
            return True
        self._latest = None
        return self._take_slowly(model, exchange)

    def _take_slowly(self, model: ModelLanes, exchange: Exchange) -> bool:
        model.uses += 1
        if model.asks_at != _NEVER and model.uses > 1:  # a program's only request needs no lane
            self._ask(model)
        if exchange.suspect or not model.usable:
            return False
        model.wait(exchange)
        return True

    def ready(self, fd: int) -> list[Exchange] | None:
        """Read a lane on which something has come; None when `fd` is no lane."""
        found = self._by_fd.get(fd)
        if found is None:
            return None
        return self._read(*found)

    def ask(
        self, last: Last, inputs: Mapping[str, Any], deadline: float
    ) -> Result | Exchange | None:
        """Send a request on a lane that has no other and look for its answer; as `Link.ask`."""
        found = self._lone(last.model)
        if found is None:
            return None
        answer = found[1].ask(last, inputs, deadline)
        self._ended_now(*found)
        return answer

    def shortcut(self, last: Last | LastShared, connection: tuple[object, ...]) -> Shortcut | None:
        """Give the shortcut for requests like one that `ask` has answered; None where none can."""
        found = self._lone(last.model)
        return None if found is None else found[1].shortcut(last, connection)

    def asked(
        self,
        last: Last | LastShared,
        inputs: Mapping[str, Any],
        number: int,
        deadline: float,
        done: Asked | Exception,
    ) -> Exchange:
        """Give the exchange with which a request goes on that a shortcut has begun."""
        model = self._models[last.model]
        (lane,) = model.lanes
        exchange = lane.asked(last, inputs, number, deadline, done)
        self._ended_now(model, lane)
        return exchange

    def _lone(self, name: str) -> tuple[ModelLanes, Lane] | None:
        """Give the model's lane, if it has one with nothing under way, and no more are to come."""
        model = self._models.get(name)
        if model is None or model.waits or len(model.lanes) != 1:
            return None
        if model.asks_at != _NEVER or self._asking:  # the gateway has something to say, or will
            return None
        lane = model.lanes[0]
        return (model, lane) if lane.idle else None

    def _ended_now(self, model: ModelLanes, lane: Lane) -> None:
        if lane.socket.ended:
            self._end(model, lane)

    def look(self) -> list[Exchange]:
        """Look for an answer to the last request for a moment, if that is alone on its lane."""
        latest = self._latest
        if latest is None or len(latest[1].outstanding) != 1 or self._asking:
            return []
        return self._read(*latest, looks=True)

    def _read(self, model: ModelLanes, lane: Lane, *, looks: bool = False) -> list[Exchange]:
        try:
            answered = lane.look() if looks else lane.receive()
        except LaneError:
            self._end(model, lane)
            return []
        if lane.bounced:
            self.returned += lane.bounced
            lane.bounced = []
        if lane.socket.ended:
            self._end(model, lane)
        else:
            lane.flush()
        if model.waits:
            answered += self._dispatch(model)
            self._return_who_waits(model)
        return answered

    def resolved(self, question: Exchange) -> bool:
        """Take in the answer to one of `questions`; false when the exchange is none."""
        model = self._asking.pop(question, None)
        if model is None:
            return False
        try:
            answer: Resolved = question.outcome()
        except SuperbrainError:  # whoever asks the gateway for an inference sees why
            model.asks_at = time.monotonic() + LONG_S
            return True
        known = {lane.path for lane in model.lanes}
        fresh = [path for path in answer.lanes if path not in known]
        connected = sum(self._connect(model, path) for path in fresh)
        if model.lanes:
            back = len(model.lanes) >= model.had
            model.asks_at = _NEVER if back else time.monotonic() + LATER_S
        else:
            wait_s = LONG_S if fresh and not connected else SOON_S
            model.asks_at = time.monotonic() + wait_s
        return True

    def release(self, region: Region) -> None:
        """Let every worker forget a region."""
        for _, lane in self._by_fd.values():
            lane.release(region)

    @property
    def has_mail(self) -> bool:
        """Whether something has to go to the gateway."""
        return bool(self.questions or self.returned)

    @property
    def mail(self) -> list[Exchange]:
        """What has to go to the gateway: questions, then, in order, what lanes left."""
        return self.questions + sorted(self.returned, key=lambda exchange: exchange.number)

    def take_mail(self) -> list[Exchange]:
        """Give the `mail`, which is somewhere else now."""
        mail = self.mail
        self.questions, self.returned = [], []
        return mail

    def unanswered(self) -> list[Exchange]:
        """Give, in order, what has no outcome, wherever it is."""
        left = sum((model.unanswered() for model in self._models.values()), self.returned)
        return sorted(set(left), key=lambda exchange: exchange.number)

    def close(self, *, died: bool = True) -> list[Exchange]:
        """End every lane; give what has no outcome. A worker that did not die has no suspects."""
        left = self.unanswered()
        for _, lane in self._by_fd.values():
            lane.close(died=died)
        self._by_fd.clear()
        self._models.clear()
        self._latest = None
        self._asking.clear()
        self.questions, self.returned = [], []
        return left

    def _connect(self, model: ModelLanes, path: str) -> bool:
        try:
            lane = Lane(path, self._epoll, self._wait, self._ledger)
        except OSError as error:
            if not of_the_kernel(error):
                raise
            return False
        model.lanes.append(lane)
        self._by_fd[lane.socket.fd] = model, lane
        lane.socket.watch(self._epoll)
        return True

    def _ask(self, model: ModelLanes) -> None:
        if time.monotonic() < model.asks_at:
            return
        question = Exchange(calls.resolve(model.model), _NEVER)
        model.asks_at = _NEVER
        self._asking[question] = model
        self.questions.append(question)

    def _end(self, model: ModelLanes, lane: Lane) -> None:
        """Forget a lane; what it leaves behind goes through the gateway."""
        self._latest = None
        self.returned += lane.close()
        del self._by_fd[lane.socket.fd]
        model.had = max(model.had, len(model.lanes))
        model.lanes.remove(lane)
        if not model.lanes:
            model.had = 0
        greeted = lane.greeted
        self._return_who_waits(model)
        if model.asks_at == _NEVER and model in self._asking.values():
            return
        # A crash leaves fewer lanes for a while; a lane that never greeted is not worth a hurry.
        wait_s = LATER_S if model.lanes or not greeted else 0.0
        model.asks_at = time.monotonic() + wait_s
        if not wait_s and self.returned:
            self._ask(model)

    def _return_who_waits(self, model: ModelLanes) -> None:
        """Let the gateway have who waits for lanes that take no more."""
        if not model.usable:
            while (exchange := model.next()) is not None:
                self.returned.append(exchange)
                model.left()

    def _dispatch(self, model: ModelLanes) -> list[Exchange]:
        """Send who waits as far as there is room; give those whose time is over."""
        overdue: list[Exchange] = []
        while (lane := model.free_lane()) is not None:
            exchange = model.next()
            if exchange is None:
                break
            if exchange.deadline <= time.monotonic():
                exchange.fail(self._overdue(exchange))
                overdue.append(exchange)
            else:
                lane.send(exchange)
                model.left()
        return overdue
