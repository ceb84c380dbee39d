"""Restart, budget, retry and retention rules."""

from __future__ import annotations

import pytest

from superbrain.domain.deployment import Deployment, State
from superbrain.domain.policy import (
    GATEWAY_RESTART_MAX_S,
    GATEWAY_RESTART_WINDOW_S,
    RESTART_MAX_S,
    RESTART_QUIET_S,
    RETRY_DELAYS_S,
    ErrorBudget,
    budget_spent,
    gateway_restart_delay_s,
    hang_limit_s,
    restart_delay_s,
    retry_delay_s,
    stand_by_limit_s,
)
from superbrain.domain.retention import retained

NOW = 1_000.0


def test_the_first_death_is_answered_at_once() -> None:
    assert restart_delay_s([NOW], NOW) == 0


def test_every_further_death_doubles_the_wait() -> None:
    delays = [restart_delay_s([NOW] * deaths, NOW) for deaths in (2, 3, 4)]
    assert delays == [0.5, 1.0, 2.0]


def test_the_wait_has_an_upper_bound() -> None:
    assert restart_delay_s([NOW] * 100, NOW) == RESTART_MAX_S


def test_a_quiet_time_ends_the_streak() -> None:
    assert restart_delay_s([NOW - RESTART_QUIET_S - 1] * 10, NOW) == 0
    assert restart_delay_s([*[NOW - RESTART_QUIET_S - 1] * 10, NOW], NOW) == 0


def test_a_loop_that_goes_on_never_becomes_faster_again() -> None:
    deaths: list[float] = []
    now, waits = 0.0, []
    for _ in range(40):
        deaths.append(now)
        waits.append(restart_delay_s(deaths, now))
        now += waits[-1] + 1.0
    assert waits == sorted(waits)
    assert waits[-1] == RESTART_MAX_S


def test_the_gateway_is_back_at_once_and_never_waits_long_however_often_it_died() -> None:
    delays = [gateway_restart_delay_s([NOW] * deaths, NOW) for deaths in (1, 2, 3, 4, 100)]
    assert delays == [0.0, 0.1, 0.2, 0.4, GATEWAY_RESTART_MAX_S]
    assert gateway_restart_delay_s([NOW - GATEWAY_RESTART_WINDOW_S - 1] * 10, NOW) == 0


def test_a_budget_is_spent_by_one_crash_more_than_it_allows() -> None:
    budget = ErrorBudget(crashes=2)
    assert not budget_spent(budget, [NOW] * 2, 0, 0, NOW)
    assert "died 3 times" in budget_spent(budget, [NOW] * 3, 0, 0, NOW)


def test_crashes_outside_the_window_do_not_count() -> None:
    budget = ErrorBudget(crashes=0, window_s=60)
    assert not budget_spent(budget, [NOW - 61], 0, 0, NOW)


@pytest.mark.parametrize(
    ("requests", "errors", "spent"), [(19, 19, False), (20, 4, False), (20, 5, True)]
)
def test_the_share_of_errors_is_judged_once_there_are_enough_requests(
    requests: int,
    errors: int,
    spent: bool,
) -> None:
    budget = ErrorBudget(error_share=0.2, min_requests=20)
    assert bool(budget_spent(budget, [], requests, errors, NOW)) is spent


def test_a_failed_attempt_is_tried_again_a_limited_number_of_times() -> None:
    delays = [retry_delay_s(attempt) for attempt in (1, 2, 3, 4)]
    assert delays == [*RETRY_DELAYS_S, None]


def row(number: int, state: State, predecessor: int = 0) -> Deployment:
    return Deployment(
        id=number,
        name="ocr",
        version=f"{number}.0.0",
        sequence=number,
        digest=f"digest {number}",
        ladder=("one",),
        state=state,
        predecessor=predecessor,
    )


def test_current_and_previous_are_always_kept() -> None:
    rows = [
        row(9, State.REJECTED),
        row(8, State.REJECTED),
        row(4, State.LIVE, predecessor=2),
        row(3, State.REJECTED),
        row(2, State.RETIRED, predecessor=1),
        row(1, State.RETIRED),
    ]
    assert retained({"ocr": rows}, {"ocr": 4}) == {"digest 9", "digest 4", "digest 2"}


def test_what_is_under_way_is_kept() -> None:
    rows = [row(3, State.FAILED), row(2, State.BUILDING), row(1, State.LIVE)]
    assert retained({"ocr": rows}, {"ocr": 1}) == {"digest 1", "digest 2", "digest 3"}


@pytest.mark.parametrize(
    ("timeout_ms", "proven_ms", "longest_s", "limit_s"),
    [
        (30_000, 1, 0.0, 2.0),
        (30_000, 500, 0.0, 5.0),
        (30_000, 1, 1.5, 15.0),
        (30_000, 60_000, 0.0, 40.0),
        (500, 1, 0.0, 2.0),
    ],
)
def test_standing_by_is_bounded_by_what_a_run_is_known_to_need(
    timeout_ms: int, proven_ms: float, longest_s: float, limit_s: float
) -> None:
    assert stand_by_limit_s(timeout_ms, proven_ms, longest_s) == limit_s


def test_an_execution_hangs_when_it_takes_longer_than_a_request_may() -> None:
    assert hang_limit_s(30_000, 2.0) == 32.0
