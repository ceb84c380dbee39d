"""The search closes in on the highest rate that keeps the limit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.cli.load.figures import Latency, Plan, Step
from superbrain.cli.load.search import STEPS, Slo, find_rate, parse_slo

SLO = Slo("p99", 20.0)


def step(rate: float, p99: float, **more: Any) -> Step:  # noqa: ANN401
    made = Step(Plan(0, rate, 0, 1), 10, rate, Latency(p99=p99), {}, {}, 0, 0)
    return msgspec.structs.replace(made, **more)


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("p99=20ms", Slo("p99", 20)),
        ("p50=800us", Slo("p50", 0.8)),
        ("max=1s", Slo("max", 1000)),
        ("p99.9=2.5ms", Slo("p99.9", 2.5)),
        ("mean=3ms", Slo("mean", 3)),
    ],
)
def test_limits_are_read(text: str, slo: Slo) -> None:
    assert parse_slo(text) == slo


@pytest.mark.parametrize("text", ["", "p99", "p99=", "p98=1ms", "p99=20", "p99=-1ms", "p99=xms"])
def test_what_is_no_limit_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="such as p99=20ms"):
        parse_slo(text)


def test_a_limit_is_met_by_who_keeps_it_and_fails_nothing() -> None:
    assert SLO.met(step(100, 20))
    assert not SLO.met(step(100, 20.1))
    assert not SLO.met(step(100, 1, errors={"INTERNAL": 1}))
    assert not SLO.met(step(100, 1, unsent=1))
    assert not SLO.met(step(100, 1, requests=0))


@given(st.floats(10, 990))
def test_the_edge_is_found_within_a_few_percent(edge: float) -> None:
    best, steps = find_rate(lambda rate: step(rate, 1 if rate <= edge else 99), 1000, SLO)
    assert len(steps) <= STEPS
    assert best <= edge
    if edge >= 62.5:
        assert edge - best <= 1000 / 2**STEPS * 2 + 1


def test_what_is_out_of_reach_is_given_up_early() -> None:
    best, steps = find_rate(lambda rate: step(rate, 99), 1000, SLO)
    assert best == 0
    assert [one.plan.rate for one in steps] == [500, 250, 125, 62.5]
