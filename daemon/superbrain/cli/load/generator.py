"""The process that asks: many callers, each a thread with a client of its own.

One process is the default: on a host of few cores, threads that mostly wait cost less than
processes do. It is a process apart from the one that reports, so that drawing and watching never
delay a request; it says how much processor it used itself.

Closed loop: each caller asks again as soon as it has its answer. Open loop: requests fall due at
random moments (Poisson) whether or not earlier ones are answered, and a latency counts from the
moment the request was due, so a slow host cannot hide behind callers that wait for it.
"""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Self

import msgspec

from superbrain.cli.load.figures import Plan, Taken
from superbrain.cli.load.payload import Request
from superbrain.client import Client
from superbrain.client.buffers import Buffers
from superbrain.wire.datatypes import NUMPY_DTYPES, datatype_of
from superbrain.wire.errors import RequestError, SuperbrainError

# Callers of an open loop: as many requests can be on their way at once.
OPEN_CALLERS = 64
# Time that an open loop gets to send what has fallen due, as a multiple of its duration.
_GIVE_UP = 3
_PAUSE_AFTER_ERROR_S = 0.01
_FIRST_REQUESTS = 3
_LOOK_EVERY_S = 0.1


class Target(msgspec.Struct, frozen=True):
    """Whom to ask, by which road, and what."""

    endpoint: str
    model: str
    requests: list[Request]
    lanes: bool
    shared_memory: bool
    timeout_s: float


def arrivals(rate: float, until_s: float, seed: int) -> list[float]:
    """Moments, in seconds from the start, at which requests fall due: Poisson at `rate`."""
    rng = random.Random(seed)  # noqa: S311 - a load test may be repeated
    moments: list[float] = []
    moment = rng.expovariate(rate)
    while moment < until_s:
        moments.append(moment)
        moment += rng.expovariate(rate)
    return moments


class Generators:
    """Generator processes, ready between steps."""

    def __init__(self, target: Target, processes: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=generate, args=(theirs, target), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(2)
            process.kill()

    def start(self, plan: Plan) -> None:
        """Begin a step in every process; a part of the callers, and of the rate, each.

        Returns when all callers are connected: then the warm-up begins.
        """
        count = len(self._ends)
        for number, end in enumerate(self._ends):
            callers = plan.callers // count + (number < plan.callers % count)
            part = msgspec.structs.replace(plan, callers=callers, rate=plan.rate / count)
            end.send((part, number))
        self.take()

    def stop(self) -> None:
        """End the step early; what was measured so far is kept."""
        for end in self._ends:
            end.send(None)

    def done(self, wait_s: float) -> bool:
        """Whether every process has its figures, after waiting at most so long for one."""
        return all(end.poll(wait_s) for end in self._ends)

    def take(self) -> list[Any]:
        """Give what every process has to say: the figures of the step.

        Raises:
            SuperbrainError: a generator process ended.
        """
        try:
            return [end.recv() for end in self._ends]
        except EOFError:
            raise SuperbrainError("expected figures of the load generator, found it gone") from None


def generate(orders: Connection, target: Target) -> None:
    """Be a generator process: a step for every plan that comes, until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the reporter asks for what was measured
    with Callers(target) as callers:
        while True:
            try:
                order = orders.recv()
                if order is not None:
                    plan, seed = order
                    callers.prepare(plan)
                    orders.send(None)
                    orders.send(callers.run(plan, seed, lambda: orders.poll(0)))
            except (EOFError, OSError):
                return


class Callers:
    """Threads that ask, and their clients, which stay connected between steps."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._resources = ExitStack()
        self._askers: list[Callable[[], str]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def prepare(self, plan: Plan) -> None:
        """Connect as many callers as a step needs."""
        while len(self._askers) < _callers(plan):
            self._add_caller()

    def run(self, plan: Plan, seed: int, stopped: Callable[[], bool]) -> Taken:
        """Carry out one step."""
        callers = _callers(plan)
        taken = Taken([], {}, {}, plan.duration_s, 0.0)
        stop = threading.Event()
        begin = time.perf_counter() + plan.warmup_s
        due = iter(arrivals(plan.rate, plan.warmup_s + plan.duration_s, seed) if plan.rate else ())
        threads = [
            threading.Thread(target=self._work, args=(ask, plan, begin, due, taken, stop))
            for ask in self._askers[:callers]
        ]
        _sleep_until(begin - plan.warmup_s)
        for thread in threads:
            thread.start()
        self._watch(threads, plan, begin, stopped, taken)
        stop.set()
        for thread in threads:
            thread.join()
        if plan.rate:
            taken.unsent = sum(1 for _ in due)
        return taken

    def _add_caller(self) -> None:
        """Add one that has found its road: the first requests of a client are slower."""
        ask = self._resources.enter_context(asking(self._target, len(self._askers)))
        for _ in range(_FIRST_REQUESTS):
            with suppress(SuperbrainError):
                ask()
        self._askers.append(ask)

    def _watch(
        self,
        threads: Sequence[threading.Thread],
        plan: Plan,
        begin: float,
        stopped: Callable[[], bool],
        taken: Taken,
    ) -> None:
        """Wait for the end of the step, or for the order to end it early."""
        _sleep_until(begin)
        cpu_s = time.process_time()
        end = begin + plan.duration_s * (_GIVE_UP if plan.rate else 1)
        while (left_s := end - time.perf_counter()) > 0 and not stopped():
            working = next((thread for thread in threads if thread.is_alive()), None)
            if working is None:
                break
            working.join(min(_LOOK_EVERY_S, left_s))
        taken.took_s = max(1e-9, time.perf_counter() - begin)
        taken.cpu_s = time.process_time() - cpu_s

    def _work(
        self,
        ask: Callable[[], str],
        plan: Plan,
        begin: float,
        due: Iterator[float],
        taken: Taken,
        stop: threading.Event,
    ) -> None:
        latencies: list[float] = []
        errors: collections.Counter[str] = collections.Counter()
        versions: collections.Counter[str] = collections.Counter()
        moments = self._due(begin - plan.warmup_s, due, stop) if plan.rate else _at_once(stop)
        for moment in moments:
            try:
                version = ask()
            except SuperbrainError as error:
                if moment >= begin:
                    errors[error.code if isinstance(error, RequestError) else "FAILED"] += 1
                stop.wait(_PAUSE_AFTER_ERROR_S)
                continue
            now = time.perf_counter()
            if moment >= begin:
                latencies.append((now - moment) * 1000)
                versions[version] += 1
        with self._lock:
            taken.latencies_ms += latencies
            taken.errors = dict(collections.Counter(taken.errors) + errors)
            taken.versions = dict(collections.Counter(taken.versions) + versions)

    def _due(self, start: float, due: Iterator[float], stop: threading.Event) -> Iterator[float]:
        """Give the next moment that is nobody else's, when it has come."""
        while not stop.is_set():
            with self._lock:
                offset = next(due, None)
            if offset is None:
                return
            _sleep_until(start + offset)
            yield start + offset


def _callers(plan: Plan) -> int:
    return OPEN_CALLERS if plan.rate else plan.callers


def _at_once(stop: threading.Event) -> Iterator[float]:
    while not stop.is_set():
        yield time.perf_counter()


def _sleep_until(moment: float) -> None:
    wait_s = moment - time.perf_counter()
    if wait_s > 0:
        time.sleep(wait_s)


@contextmanager
def asking(target: Target, number: int) -> Iterator[Callable[[], str]]:
    """Give what asks once and says which version answered, with a client of its own."""
    first = number % len(target.requests)
    requests = itertools.cycle(target.requests[first:] + target.requests[:first])
    with Client(target.endpoint, target.timeout_s, lanes=target.lanes) as client:
        if not target.shared_memory:
            yield lambda: client.infer(target.model, next(requests)).model_version
            return
        request = next(requests)
        numbers = {
            name: array for name, array in request.items() if datatype_of(array) in NUMPY_DTYPES
        }
        shapes: dict[str, Any] = {name: array.shape for name, array in numbers.items()}
        with client.buffers(target.model, **shapes) as buffers:
            changing = len(target.requests) > 1
            ask = _in_shared_memory(buffers, requests, request, changing=changing)
            for name, array in numbers.items():
                buffers[name][...] = array
            yield ask


def _in_shared_memory(
    buffers: Buffers, requests: Iterator[Request], first: Request, *, changing: bool
) -> Callable[[], str]:
    """Ask with arrays that lie in shared memory already, or are written there anew each time."""

    def ask() -> str:
        request = next(requests) if changing else first
        inline: dict[str, Any] = {}
        for name, array in request.items():
            if datatype_of(array) not in NUMPY_DTYPES:
                inline[name] = array
            elif changing:
                buffers[name][...] = array
        return buffers.infer(**inline).model_version

    return ask
