"""Quantiles are exact, and what several processes measured is one step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.cli.load.figures import Latency, Plan, Taken, Usage, latency_of, summarize

PLAN = Plan(4, 0, 1, 5)


def test_quantiles_are_nearest_ranks() -> None:
    latency = latency_of([float(n) for n in range(1, 1001)])
    assert (latency.p50, latency.p90, latency.p99, latency.p999) == (500, 900, 990, 999)
    assert (latency.max, latency.mean) == (1000, 500.5)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=50).map(sorted))
def test_quantiles_rise_and_are_measured_values(ordered: list[float]) -> None:
    latency = latency_of(ordered)
    quantiles = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max]
    assert quantiles == sorted(quantiles)
    assert set(quantiles) <= set(ordered)


def test_nothing_answered_is_all_zeros() -> None:
    assert latency_of([]) == Latency()
    assert summarize(PLAN, []).throughput == 0


def test_quantiles_have_their_usual_names() -> None:
    latency = Latency(1, 2, 3, 4, 5, 6)
    names = ("mean", "p50", "p90", "p99", "p99.9", "max")
    assert [latency.quantile(name) for name in names] == [1, 2, 3, 4, 5, 6]


def test_processes_add_up() -> None:
    one = Taken([1.0, 3.0], {"INTERNAL": 1}, {"1": 2}, 2.0, 1.0)
    two = Taken([2.0], {"INTERNAL": 2, "NOT_FOUND": 1}, {"2": 1}, 2.0, 0.5, unsent=3)
    step = summarize(PLAN, [one, two])
    assert (step.requests, step.throughput) == (3, 1.5)
    assert step.errors == {"INTERNAL": 3, "NOT_FOUND": 1}
    assert step.versions == {"1": 2, "2": 1}
    assert step.failed == 7
    assert step.generator_cores == pytest.approx(0.75)
    assert (step.latency_ms.p50, step.latency_ms.max) == (2, 3)


def test_a_role_is_all_its_processes() -> None:
    usage = [Usage("worker 1", 0.5, 1), Usage("worker 2", 0.25, 1), Usage("gateway", 1, 1)]
    assert summarize(PLAN, [], usage=usage).cores("worker") == 0.75
