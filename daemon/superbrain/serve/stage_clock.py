"""Where the time of a request goes: told by the executor, the engines and nobody else.

The executor starts the clock when an execution begins; every engine of the model adds how long its
runs took. domain/durations.py says what the stages mean. It costs two readings of the clock for
each run of a graph; bundle code knows nothing of it. While an answer is handed on, the clock still
is that of the execution it came from: `times` says where its time went.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from superbrain.serve.wrapped_engine import WrappedEngine

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
    """Times one execution after the other; runs outside of one, as a proof's, do not matter.

    Attributes:
        began_ns: when the execution began.
        first_ns: when its first run of a graph did; 0 before.
        engine_ns: how long its runs took together.
    """

    __slots__ = ("began_ns", "engine_ns", "first_ns")

    def __init__(self) -> None:
        self.began_ns = self.first_ns = self.engine_ns = 0

    def start(self, now_ns: int) -> None:
        """Begin an execution."""
        self.began_ns = now_ns
        self.first_ns = self.engine_ns = 0

    def times(self, ended_ns: int) -> StageTimes:
        """Say where the time of the execution that ended then went.

        Without a run of a graph all of it was preprocessing. No stage is negative and none longer
        than the whole, also where bundle code runs graphs in threads of its own, side by side or
        beyond the end of its request.
        """
        began_ns = self.began_ns
        first_ns = max(self.first_ns, began_ns) if self.first_ns else ended_ns
        rest_ns = ended_ns - first_ns
        engine_ns = min(self.engine_ns, rest_ns)
        return StageTimes(began_ns, first_ns - began_ns, engine_ns, rest_ns - engine_ns)


class TimedEngine(WrappedEngine):
    """An engine whose runs are told to a clock."""

    def __init__(self, engine: Engine, clock: StageClock) -> None:
        super().__init__(engine)
        self._clock = clock

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once."""
        began_ns = time.monotonic_ns()
        try:
            return self._run(inputs)
        finally:
            clock = self._clock
            if not clock.first_ns:
                clock.first_ns = began_ns
            clock.engine_ns += time.monotonic_ns() - began_ns
