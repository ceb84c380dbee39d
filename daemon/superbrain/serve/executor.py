"""A worker's requests between arrival and answer: they wait, then run alone or together.

One bounded queue, one execution at a time. Requests that wait when an execution ends are executed
next, up to `max_size` of them together; how long the first is held for others is the policy of
domain/batching.py. The flight page says at every moment whose work is being done.
"""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from superbrain.domain.batching import Patience
from superbrain.domain.manifest import Batching
from superbrain.serve.admission import AdmissionQueue
from superbrain.serve.execution import Execution, Outcome, refuse, shared_header
from superbrain.serve.served import ServedModel
from superbrain.serve.stage_clock import StageClock
from superbrain.transport import compiled
from superbrain.wire import lane
from superbrain.wire.errors import DeadlineExceeded, ResourceExhausted
from superbrain.wire.messages import MAX_PRIORITY, salvage_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superbrain.serve.figures import WorkerFigures
    from superbrain.serve.record_keeping import Picks
    from superbrain.serve.worker_lane import UsualLane, WorkerLane
    from superbrain.transport._loop import Express
    from superbrain.transport.flight import FlightPage

    _Answer = tuple[bool, Any, int, int]
    _Done = int | tuple[bytes, int] | _Answer
    # A request that was executed: when that began, and what there is to answer.
    Left = tuple[lane.LaneFrame, int, _Answer]

# Answers wait for each other, to travel together, no longer than this.
TOGETHER_NS = 200_000
# Whose runs are shorter than this takes requests as they come: none of them waits for its turn.
_QUICK_NS = 50_000
# Who has less time left than this is looked after one by one.
_SOON_NS = 50_000_000


# A spell ends after so many, for others want the processor and the interpreter too.
_MOST = 64


class Spell(NamedTuple):
    """What a spell of usual requests came to.

    Attributes:
        executed: so many requests.
        came: whether there was anything to do.
        ready: what else is ready: descriptors and what they are ready for.
        found: a lane, and what came there that is not usual: an error of the lane, or what was
            executed and left, if anything was, frames, and when all that came.
        unsent: lanes, answers there, and how many bytes of them the peer took.
        crowded: somebody else wants the processor.
    """

    executed: int
    came: bool
    ready: list[tuple[int, int]]
    found: tuple[int, Exception | tuple[Left | None, list[lane.LaneFrame], int]] | None
    unsent: list[tuple[int, tuple[bytes, ...], int]]
    crowded: bool

    @property
    def answered(self) -> int:
        """How many were answered and counted: those that were executed, but for one left."""
        if self.found is None or isinstance(self.found[1], Exception):
            return self.executed
        return self.executed - (self.found[1][0] is not None)


class Admitted:
    """A request in the queue."""

    __slots__ = ("arrived_ns", "frame", "link")

    def __init__(self, link: WorkerLane, frame: lane.LaneFrame, arrived_ns: int) -> None:
        self.link = link
        self.frame = frame
        self.arrived_ns = arrived_ns


class Executor:
    """Executes what was admitted, the most urgent first.

    Answers go to `answer`, which counts them; those that are counted and written, to `post`; that
    of a lone request may be sent at once. With each answer goes the time it was ready and the clock
    of its execution, None for a request that was not executed. A request that `picks` is about to
    pick takes the way on which it is answered by `answer`.
    """

    def __init__(
        self,
        figures: WorkerFigures,
        answer: Callable[[Admitted, Outcome, int, StageClock | None], None],
        post: Callable[[WorkerLane, bytes], None],
        flight: FlightPage,
        picks: Picks | None = None,
    ) -> None:
        self.flight = flight
        self._figures = figures
        self._answer = answer
        self._post = post
        self._arrivals = count()
        self._execution: Execution | None = None
        self._clock = StageClock()
        self._patience = Patience(Batching())
        self._timeout_ns = 0
        self._queue: AdmissionQueue[Admitted] = AdmissionQueue(0)
        self._waits = True
        self._express: Express | None = None
        self._picks = picks
        self._held_until_ns = 0
        self._running: Sequence[Admitted] = ()
        figures.executing = self._executing

    def serve(self, model: ServedModel) -> None:
        """Execute on `model` from now on."""
        self._execution = Execution(model, told=self._picks is not None)
        self._clock = model.clock
        self._patience = Patience(model.batching)
        self._timeout_ns = model.request_timeout_ms * 1_000_000
        self._queue = AdmissionQueue(model.queue_size)
        self._waits = model.queue_size < 1 or self._patience.ever_waits
        module = compiled.loop()
        if module is not None:
            page, answer = self.flight.page, model.answer
            self._express = module.Express(page, self._figures, model.clock, answer)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def idle_s(self) -> float | None:
        """Say how long there is nothing to do unless something comes; None for ever."""
        if not self._queue:
            return None
        if not self._held_until_ns:
            return 0
        return max(0, self._held_until_ns - time.monotonic_ns()) / 1e9

    def admit(self, request: Admitted) -> None:
        """Let a request wait for its turn, or answer that too many do."""
        frame = request.frame
        try:
            self._queue.push(
                request,
                arrival=next(self._arrivals),
                priority=min(frame.priority, MAX_PRIORITY),
                deadline_ns=frame.deadline_ns or request.arrived_ns + self._timeout_ns,
            )
        except ResourceExhausted as error:
            self._answer(request, refuse(frame, error), request.arrived_ns, None)

    def spell(
        self, epoll_fd: int, lanes: dict[int, UsualLane], moment_ns: int, crowded_ns: int
    ) -> Spell | None:
        """Execute usual requests as they come, as long as nothing else does.

        Give None, and do nothing, where every request has to take its turn in Python.

        Args:
            epoll_fd: on which `lanes` are watched.
            lanes: by descriptor, those on which nothing waits to be sent.
            moment_ns: so long to look for the next one.
            crowded_ns: who gives way for longer than this looks no more.
        """
        express, execution, picks = self._express, self._execution, self._picks
        if express is None or execution is None or self._queue or self._waits:
            return None
        most = _MOST if picks is None else min(_MOST, picks.left - 1)
        if most < 1:
            return None
        quick_ns = _QUICK_NS if self._patience.max_size == 1 else 0
        waits = TOGETHER_NS, quick_ns, self._queue.size, _SOON_NS
        limits = moment_ns, crowded_ns, most, *waits
        done = Spell(*express.spell(epoll_fd, lanes, execution.usual, limits))
        if picks is not None:
            picks.left -= done.answered
        return done

    def conclude(self, link: WorkerLane, left: Left, arrived_ns: int) -> None:
        """Answer and count what was executed in a spell, and left."""
        assert self._execution is not None  # noqa: S101 - it has executed it
        frame, now_ns, answer = left
        self._conclude(self._execution, Admitted(link, frame, arrived_ns), now_ns, answer)

    def take(self, arrivals: list[Admitted]) -> None:
        """Take in what has come together, and work.

        What needs no queue, because it would leave it as it came, is executed without.
        """
        now_ns = time.monotonic_ns()
        if not self._may_go_at_once(arrivals, now_ns):
            for request in arrivals:
                self.admit(request)
            self.work()
            return
        until_ns = now_ns + TOGETHER_NS
        for position, request in enumerate(arrivals):
            if now_ns >= until_ns:
                for later in arrivals[position:]:
                    self.admit(later)
                return
            if not request.link.ended:
                now_ns = self._execute_one(request, now_ns, alone=len(arrivals) == 1)

    def _may_go_at_once(self, arrivals: Sequence[Admitted], now_ns: int) -> bool:
        """Nothing waits or has to, and the order of arrival is that of their turns."""
        if self._queue or self._waits or not arrivals:
            return False
        first = arrivals[0].frame
        if len(arrivals) == 1:
            return not 0 < first.deadline_ns <= now_ns
        return (
            len(arrivals) <= self._queue.size
            and self._patience.max_size == 1
            and all(one.frame.priority == first.priority for one in arrivals)
            and all(one.frame.deadline_ns > now_ns + _SOON_NS for one in arrivals)
        )

    def clear(self) -> None:
        """Forget what waits; nobody has begun with it."""
        self._queue.clear()

    def work(self, *, holds: bool = True) -> None:
        """Execute the most urgent requests, and the next ones as long as answers may wait.

        Args:
            holds: whether some may be held for others to join them.
        """
        queue = self._queue
        if not queue:
            return
        now_ns = time.monotonic_ns()
        until_ns = now_ns + TOGETHER_NS
        while True:
            self._refuse_expired(now_ns)
            if not queue or (holds and self._patience.ever_waits and self._held(now_ns)):
                return
            batch = self._take()
            if len(batch) == 1:
                now_ns = self._execute_one(batch[0], now_ns)
            elif batch:
                now_ns = self._execute(batch, now_ns)
            if now_ns >= until_ns:
                return

    def _refuse_expired(self, now_ns: int) -> None:
        for request in self._queue.expired(now_ns):
            waited_ms = (now_ns - request.arrived_ns) / 1e6
            error = DeadlineExceeded(
                f"expected to start before the deadline, found it passed after {waited_ms:.1f} ms"
            )
            self._answer(request, refuse(request.frame, error), now_ns, None)

    def _held(self, now_ns: int) -> bool:
        """Whether those that wait are held for others to join them."""
        self._held_until_ns = 0
        first = self._queue.first()
        if first is None or _alone(first):
            return False
        until_ns = self._patience.hold_until_ns(
            len(self._queue),
            min(request.arrived_ns for request in self._queue),
            self._queue.earliest_deadline_ns,
        )
        if until_ns > now_ns:
            self._held_until_ns = until_ns
        return until_ns > now_ns

    def _take(self) -> list[Admitted]:
        """Take whose turn it is, without those whose asker is gone."""
        batch = [self._queue.take()]
        if self._patience.max_size > 1 and not _alone(batch[0]):
            while len(batch) < self._patience.max_size:
                following = self._queue.first()
                if following is None or _alone(following):
                    break
                batch.append(self._queue.take())
        return [request for request in batch if not request.link.ended]

    def _execute_one(self, request: Admitted, now_ns: int, *, alone: bool = False) -> int:
        """Execute a request and answer it; give the time when it ended.

        The answer of one that came `alone` is sent at once. Where there are more, the first one's
        asker had better not be woken yet: it would take the processor from the others.
        """
        assert self._execution is not None  # noqa: S101 - only `serve` lets requests in
        link = request.link
        self._clock.start(now_ns)
        done = None
        picks = self._picks
        if self._express is not None and (picks is None or picks.left > 1):
            fd = link.direct_fd if alone else -1
            header, name = shared_header(request.frame)
            usual = self._execution.usual.get(header) or link.regions.usual.get(header)
            if usual is not None:
                arrived_ns = request.arrived_ns
                done = self._express.run(
                    request.frame, fd, link.number, arrived_ns, now_ns, usual, name
                )
        if done is None:
            ended_ns = self._execute_in_steps(self._execution, request, now_ns)
        else:
            ended_ns = self._conclude(self._execution, request, now_ns, done)
        if self._waits:
            self._patience.executed(1, ended_ns)
        return ended_ns

    def _conclude(self, execution: Execution, request: Admitted, now_ns: int, done: _Done) -> int:
        """Take note of what the express has done, answer what it left; give when it ended."""
        if not isinstance(done, int) and len(done) == 4:
            _, answer, sent, ended_ns = done
            self._figures.ran(ended_ns - now_ns)
            outcome = execution.conclude(request.frame, answer, request.link.regions)
            outcome.sent = sent
            self._answer(request, outcome, ended_ns, self._clock)
            return ended_ns
        if isinstance(done, int):
            ended_ns = done
        else:
            written, ended_ns = done
            self._post(request.link, written)
        if self._picks is not None:
            self._picks.left -= 1
        return ended_ns

    def _execute_in_steps(self, execution: Execution, request: Admitted, now_ns: int) -> int:
        figures, flight, frame, link = self._figures, self.flight, request.frame, request.link
        figures.executing_since_ns, self._running = now_ns, (request,)
        flight.begin(link.number, frame.request_id)
        outcome = execution.one(frame, link.regions)
        flight.end()
        figures.executing_since_ns, self._running = 0, ()
        ended_ns = time.monotonic_ns()
        figures.ran(ended_ns - now_ns)
        self._answer(request, outcome, ended_ns, self._clock)
        return ended_ns

    def _execute(self, batch: Sequence[Admitted], now_ns: int) -> int:
        """Execute a batch and answer it in its order; give the time when it ended."""
        assert self._execution is not None  # noqa: S101 - only `serve` lets requests in
        figures = self._figures
        figures.executing_since_ns, self._running = now_ns, batch
        self._clock.start(now_ns)
        outcomes = self._execute_together(self._execution, batch)
        self.flight.end()
        figures.executing_since_ns, self._running = 0, ()
        began_ns, now_ns = now_ns, time.monotonic_ns()
        figures.ran(now_ns - began_ns)
        for request, outcome in zip(batch, outcomes, strict=True):
            self._answer(request, outcome, now_ns, self._clock)
        self._patience.executed(len(batch), now_ns)
        return now_ns

    def _executing(self) -> list[str]:
        """Name what is being executed; any thread may ask."""
        headers: list[lane.Data] = [request.frame.header for request in self._running]
        if self._express is not None and self._express.header is not None:
            headers.append(self._express.header)
        names = [salvage_id(header) for header in headers]
        return [name for name in names if name]

    def _execute_together(self, execution: Execution, batch: Sequence[Admitted]) -> list[Outcome]:
        names = [(request.link.number, request.frame.request_id) for request in batch]

        def executing(positions: Sequence[int]) -> None:
            self.flight.begin_together([names[position] for position in positions])

        self._figures.batched(len(batch))
        return execution.together(
            [(request.frame, request.link.regions) for request in batch], executing
        )


def _alone(request: Admitted) -> bool:
    return request.frame.kind == lane.ALONE
