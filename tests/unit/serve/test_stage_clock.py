"""Where the time of an execution goes: exactly once into one of its stages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.engines.port import Engine
from superbrain.serve.model import Model
from superbrain.serve.stage_clock import StageClock, StageTimes, TimedEngine
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import Internal
from tests.support.graphs import DOUBLE
from tests.support.models import RUNG, border, write_model

TIMES = st.integers(0, 1000)
PIPELINES = {
    "run": """
        class Pipeline:
            def __init__(self, bundle): ...
            def run(self, request, graphs): return graphs["double"](request)
    """,
    "steps": """
        class Pipeline:
            def __init__(self, bundle): ...
            def preprocess(self, request): return request
            def postprocess(self, outputs, request): return outputs
    """,
}


def ran(clock: StageClock, began_ns: int, ended_ns: int) -> None:
    """What a timed engine does."""
    clock.first_ns = clock.first_ns or began_ns
    clock.engine_ns += ended_ns - began_ns


def test_before_within_and_after_the_run_are_three_stages() -> None:
    clock = StageClock()
    clock.start(100)
    ran(clock, 120, 150)
    assert clock.times(160) == StageTimes(100, 20, 30, 10)


def test_what_is_between_two_runs_is_postprocessing() -> None:
    clock = StageClock()
    clock.start(100)
    ran(clock, 110, 120)
    ran(clock, 150, 170)
    assert clock.times(180) == StageTimes(100, 10, 30, 40)


def test_an_execution_without_a_run_was_all_preprocessing() -> None:
    clock = StageClock()
    clock.start(100)
    assert clock.times(180) == StageTimes(100, 80, 0, 0)


def test_what_a_proof_ran_before_does_not_count() -> None:
    clock = StageClock()
    ran(clock, 10, 90)
    clock.start(100)
    ran(clock, 110, 120)
    assert clock.times(130) == StageTimes(100, 10, 10, 10)


@given(TIMES, st.lists(st.tuples(TIMES, TIMES), max_size=4), TIMES)
def test_no_stage_is_negative_and_they_add_up_whatever_threads_of_a_bundle_do(
    began: int, runs: list[tuple[int, int]], took: int
) -> None:
    clock, ended = StageClock(), 1 + began + took
    clock.start(1 + began)
    for one, other in runs:
        first, last = sorted((min(one, ended), min(other, ended)))
        ran(clock, first, last)
    times = clock.times(ended)
    assert min(times) >= 0
    assert sum(times[1:]) == took


class Slow:
    """An engine of which every run takes a second, on a clock of its own."""

    rung = runtime = "fake"
    inputs = outputs = ()
    metadata: Mapping[str, str] = {}

    def __init__(self, *, fails: bool) -> None:
        self.now_ns = 0
        self.closed = False
        self._fails = fails

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.now_ns += 1_000_000_000
        if self._fails:
            raise Internal("expected to run")
        return dict(inputs)

    def bound(self) -> None:
        """Nothing is bound."""

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_is_timed_also_when_it_fails(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    engine, clock = Slow(fails=fails), StageClock()
    monkeypatch.setattr("time.monotonic_ns", lambda: 5 + engine.now_ns)
    timed = TimedEngine(cast("Engine", engine), clock)
    clock.start(5)
    try:
        timed.run({})
    except Internal:
        assert fails
    assert clock.times(1_000_000_007) == StageTimes(5, 0, 1_000_000_000, 2)
    timed.close()
    assert engine.closed


@pytest.mark.parametrize("code", ["", "run", "steps"])
def test_a_model_tells_its_clock_of_every_graph_it_runs(tmp_path: Path, code: str) -> None:
    manifest = write_model(
        tmp_path,
        graphs={"double": DOUBLE},
        inputs=[border("x", "FP32", -1)],
        outputs=[border("y", "FP32", -1)],
        files={"code/pipeline.py": PIPELINES[code]} if code else {},
    )
    with Model.open(tmp_path, manifest, RUNG) as model:
        model.clock.start(time.monotonic_ns())
        answer = model.infer({"x": np.ones(3, np.float32)})
        times = model.clock.times(time.monotonic_ns())
    assert list(answer["y"]) == [2, 2, 2]
    assert times.preprocess_ns > 0
    assert times.engine_ns > 0
    assert times.postprocess_ns > 0
