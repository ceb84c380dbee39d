"""Figures: quantiles over a moving window, and every ending counted in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.ctl import Quantiles
from superbrain.domain.durations import STAGES
from superbrain.serve.figures import Durations, LatencyWindow, WorkerFigures
from superbrain.serve.request_durations import RequestDurations
from superbrain.serve.stage_clock import StageClock
from superbrain.wire import errors

MS = 1_000_000


def test_an_empty_window_has_zeros() -> None:
    assert LatencyWindow().quantiles() == Quantiles()


def test_quantiles_are_nearest_rank_in_milliseconds() -> None:
    window = LatencyWindow()
    for milliseconds in range(101):
        window.add(milliseconds * 1_000_000)
    assert window.quantiles() == Quantiles(50.0, 90.0, 99.0, 100.0)


def test_the_window_forgets_the_oldest() -> None:
    window = LatencyWindow(size=2)
    for milliseconds in (1, 2, 3):
        window.add(milliseconds * 1_000_000)
    assert window.quantiles().max == 3
    assert window.quantiles().p50 == 2


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (None, "ok"),
        (errors.InvalidArgument("x"), "caller_errors"),
        (errors.NotFound("x"), "caller_errors"),
        (errors.Internal("x"), "internal_errors"),
        (errors.DeadlineExceeded("x"), "expired"),
        (errors.ResourceExhausted("x"), "refused"),
    ],
)
def test_every_ending_is_counted_in_its_place(
    error: errors.RequestError | None, field: str
) -> None:
    figures = WorkerFigures(RequestDurations())
    figures.finished(error, 0, 1000, None, direct=True)
    pong = figures.pong(0)
    assert pong.requests == 1
    assert getattr(pong, field) == 1
    assert (pong.direct_requests, pong.direct_errors) == (1, int(error is not None))


def clock(began_ns: int, first_ns: int, engine_ns: int) -> StageClock:
    made = StageClock()
    made.began_ns, made.first_ns, made.engine_ns = began_ns, first_ns, engine_ns
    return made


@pytest.mark.parametrize("count", [1, 255, 256, 1000])
def test_where_the_time_of_requests_went_is_counted_and_adds_up(count: int) -> None:
    figures = WorkerFigures(RequestDurations())
    for _ in range(count):
        figures.finished(None, MS, 11 * MS, clock(2 * MS, 4 * MS, 3 * MS), direct=True)
    pong = figures.pong(0)
    sums = {stage: durations.sum_ns // MS for stage, durations in pong.stages.items()}
    assert sums == {
        "queue": count,
        "preprocess": 2 * count,
        "engine": 3 * count,
        "postprocess": 4 * count,
    }
    assert {durations.count for durations in pong.stages.values()} == {count}
    assert (pong.latency.count, pong.latency.sum_ns) == (count, 10 * count * MS)


def test_a_request_that_failed_or_was_not_executed_has_no_part_in_durations() -> None:
    figures = WorkerFigures(RequestDurations())
    figures.finished(errors.Internal("x"), 0, 1000, clock(1, 2, 3), direct=True)
    figures.finished(errors.ResourceExhausted("x"), 0, 0, None, direct=True)
    assert figures.pong(0).latency.count == 0


@given(st.lists(st.tuples(*[st.integers(0, 10**10)] * 5), max_size=6))
def test_many_at_a_time_are_counted_as_the_clock_says_of_each(
    requests: list[tuple[int, ...]],
) -> None:
    durations = RequestDurations()
    alone = {stage: Durations() for stage in (*STAGES, "whole")}
    for waited, before, run, after, arrived in requests:
        began = arrived + waited
        first = began + before if run else 0
        ended = began + before + run + after
        one = clock(began, first, run)
        durations.add(arrived, one, ended)
        _, *times = one.times(ended)
        for stage, took in zip(STAGES, (waited, *times), strict=True):
            alone[stage].add(took)
        alone["whole"].add(ended - arrived)
    whole, stages = durations.histograms()
    assert {**stages, "whole": whole} == {stage: one.histogram() for stage, one in alone.items()}


@pytest.mark.parametrize(("duration_ns", "bucket"), [(0, 0), (100_000, 0), (100_001, 1)])
def test_a_bound_belongs_to_its_bucket(duration_ns: int, bucket: int) -> None:
    durations = Durations()
    durations.add(duration_ns)
    durations.add(10**12)
    histogram = durations.histogram()
    assert histogram.counts[bucket] == histogram.counts[-1] == 1
    assert histogram.sum_ns == duration_ns + 10**12


def test_how_long_a_request_has_run_is_told() -> None:
    figures = WorkerFigures(RequestDurations())
    figures.executing_since_ns = 1_000_000_000
    assert figures.pong(3_500_000_000).executing_s == 2.5
    figures.executing_since_ns = 0
    assert figures.pong(3_500_000_000).executing_s == 0.0


def test_runs_are_counted_with_their_time_and_the_longest() -> None:
    figures = WorkerFigures(RequestDurations())
    for milliseconds in (2, 5, 3):
        figures.ran(milliseconds * 1_000_000)
    pong = figures.pong(0)
    assert (pong.runs, pong.executed_s, pong.longest_s) == (3, 0.01, 0.005)


def test_what_is_executed_is_named_when_it_takes_long() -> None:
    figures = WorkerFigures(RequestDurations())
    figures.executing = lambda: ["a", "b"]
    figures.executing_since_ns = 1_000_000_000
    assert figures.pong(1_100_000_000).executing == []
    assert figures.pong(2_000_000_000).executing == ["a", "b"]
    figures.executing_since_ns = 0
    assert figures.pong(2_000_000_000).executing == []
