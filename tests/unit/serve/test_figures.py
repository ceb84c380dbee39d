"""Figures: every ending counted in its place, what is in the tally together with all else."""

from __future__ import annotations

import pytest

from superbrain.domain.ctl import Quantiles
from superbrain.serve.figures import WorkerFigures
from superbrain.serve.stage_clock import StageClock
from superbrain.wire import errors

MS = 1_000_000


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
    figures.finished(error, 0, 1000, clock(1, 2, 3), direct=True)
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
    figures = WorkerFigures()
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
    figures = WorkerFigures()
    figures.finished(errors.Internal("x"), 0, 1000, clock(1, 2, 3), direct=True)
    figures.finished(errors.ResourceExhausted("x"), 0, 0, None, direct=True)
    assert figures.pong(0).latency.count == 0


def test_how_long_a_request_has_run_is_told() -> None:
    figures = WorkerFigures()
    figures.executing_since_ns = 1_000_000_000
    assert figures.pong(3_500_000_000).executing_s == 2.5
    figures.executing_since_ns = 0
    assert figures.pong(3_500_000_000).executing_s == 0.0


def test_what_the_tally_has_and_all_else_are_told_together() -> None:
    figures = WorkerFigures()
    figures.tally.add(0, clock(MS, 2 * MS, MS), 4 * MS, direct=True, alone=True)
    figures.tally.add(0, clock(MS, 2 * MS, MS), 6 * MS, direct=False, alone=True)
    figures.finished(None, 0, 8 * MS, clock(MS, 2 * MS, MS), direct=True)
    for error in (errors.Internal("x"), errors.NotFound("x"), errors.ResourceExhausted("x")):
        figures.finished(error, 0, 0, None, direct=True)
    figures.finished(errors.DeadlineExceeded("x"), 0, 0, None, direct=False)
    figures.ran(7 * MS)
    pong = figures.pong(0)
    assert (pong.requests, pong.ok) == (7, 3)
    assert (pong.direct_requests, pong.direct_errors) == (5, 3)
    assert (pong.runs, pong.executed_s) == (3, 0.015)
    assert pong.latency_ms == Quantiles(6.0, 8.0, 8.0, 8.0)


@pytest.mark.parametrize(("alone_ms", "together_ms"), [(3, 2), (2, 3)])
def test_the_longest_run_is_the_longest_of_all(alone_ms: int, together_ms: int) -> None:
    figures = WorkerFigures()
    figures.tally.add(0, clock(MS, 0, 0), (1 + alone_ms) * MS, direct=True, alone=True)
    figures.ran(together_ms * MS)
    assert figures.pong(0).longest_s == 0.003


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
