"""Figures: quantiles over a moving window, and every ending counted in its place."""

from __future__ import annotations

import pytest

from superbrain.domain.ctl import Quantiles
from superbrain.serve.figures import Durations, LatencyWindow, WorkerFigures
from superbrain.serve.stage_clock import StageTimes
from superbrain.wire import errors


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
    figures = WorkerFigures()
    figures.finished(error, 1000, direct=True)
    pong = figures.pong(0)
    assert pong.requests == 1
    assert getattr(pong, field) == 1
    assert (pong.direct_requests, pong.direct_errors) == (1, int(error is not None))


def test_where_the_time_of_a_request_went_is_counted_and_adds_up() -> None:
    figures = WorkerFigures()
    figures.finished(None, 10_000_000, StageTimes(0, 2_000_000, 3_000_000, 4_000_000), direct=True)
    figures.finished(None, 20_000_000, StageTimes(0, 2_000_000, 3_000_000, 4_000_000), direct=True)
    pong = figures.pong(0)
    sums = {stage: durations.sum_ns // 1_000_000 for stage, durations in pong.stages.items()}
    assert sums == {"queue": 12, "preprocess": 4, "engine": 6, "postprocess": 8}
    assert {durations.count for durations in pong.stages.values()} == {2}
    assert (pong.latency.count, pong.latency.sum_ns) == (2, sum(sums.values()) * 1_000_000)


def test_a_request_that_failed_or_was_not_executed_has_no_part_in_durations() -> None:
    figures = WorkerFigures()
    figures.finished(errors.Internal("x"), 1000, StageTimes(0, 1, 2, 3), direct=True)
    figures.finished(errors.ResourceExhausted("x"), 0, None, direct=True)
    assert figures.pong(0).latency.count == 0


@pytest.mark.parametrize(("duration_ns", "bucket"), [(0, 0), (100_000, 0), (100_001, 1)])
def test_a_bound_belongs_to_its_bucket(duration_ns: int, bucket: int) -> None:
    durations = Durations()
    durations.add(duration_ns)
    durations.add(10**12)
    histogram = durations.histogram()
    assert histogram.counts[bucket] == histogram.counts[-1] == 1
    assert histogram.sum_ns == duration_ns + 10**12


def test_how_long_a_request_has_run_is_told() -> None:
    figures = WorkerFigures()
    figures.executing_since_ns = 1_000_000_000
    assert figures.pong(3_500_000_000).executing_s == 2.5
    figures.executing_since_ns = 0
    assert figures.pong(3_500_000_000).executing_s == 0.0


def test_runs_are_counted_with_their_time_and_the_longest() -> None:
    figures = WorkerFigures()
    for milliseconds in (2, 5, 3):
        figures.ran(milliseconds * 1_000_000)
    pong = figures.pong(0)
    assert (pong.runs, pong.executed_s, pong.longest_s) == (3, 0.01, 0.005)


def test_what_is_executed_is_named_when_it_takes_long() -> None:
    figures = WorkerFigures()
    figures.executing = lambda: ["a", "b"]
    figures.executing_since_ns = 1_000_000_000
    assert figures.pong(1_100_000_000).executing == []
    assert figures.pong(2_000_000_000).executing == ["a", "b"]
    figures.executing_since_ns = 0
    assert figures.pong(2_000_000_000).executing == []
