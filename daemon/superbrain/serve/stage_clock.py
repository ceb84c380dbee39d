"""Where the time of a request goes: told by the executor, the engines and nobody else.

The executor starts the clock when an execution begins and stops it when that has ended; every
engine of the model says how long its runs took. domain/durations.py says what the stages mean. It
costs two readings of the clock for each run of a graph; bundle code knows nothing of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from superbrain.engines.port import Engine
    from superbrain.wire.datatypes import Array


class StageTimes(NamedTuple):
    """One execution: when it began, and how long each stage of it took."""

    began_ns: int
    preprocess_ns: int
    engine_ns: int
    postprocess_ns: int


class StageClock:
    """Times one execution after the other; runs outside of one, as a proof's, do not matter."""

    __slots__ = ("_began_ns", "_engine_ns", "_first_ns")

    def __init__(self) -> None:
        self._began_ns = 0
        self._first_ns = 0
        self._engine_ns = 0

    def start(self, now_ns: int) -> None:
        """Begin an execution."""
        self._began_ns = now_ns
        self._first_ns = self._engine_ns = 0

    def ran(self, began_ns: int, ended_ns: int) -> None:
        """Take note of a run of a graph, which may have failed."""
        if not self._first_ns:
            self._first_ns = began_ns
        self._engine_ns += ended_ns - began_ns

    def stop(self, now_ns: int) -> StageTimes:
        """End the execution; without a run of a graph all of it was preprocessing.

        No stage is negative and none longer than the whole, also where bundle code runs graphs in
        threads of its own, side by side or beyond the end of its request.
        """
        began_ns, first_ns, engine_ns = self._began_ns, self._first_ns, self._engine_ns
        if first_ns < began_ns:
            first_ns = began_ns if first_ns else now_ns
        rest_ns = now_ns - first_ns
        engine_ns = min(engine_ns, rest_ns)
        return StageTimes(began_ns, first_ns - began_ns, engine_ns, rest_ns - engine_ns)


class TimedEngine:
    """An engine whose runs are told to a clock."""

    def __init__(self, engine: Engine, clock: StageClock) -> None:
        self._run = engine.run
        self._clock = clock
        self.rung, self.runtime = engine.rung, engine.runtime
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.metadata = engine.metadata
        self.close = engine.close

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once."""
        began_ns = time.monotonic_ns()
        try:
            return self._run(inputs)
        finally:
            self._clock.ran(began_ns, time.monotonic_ns())
