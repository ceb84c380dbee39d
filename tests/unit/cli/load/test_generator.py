"""Arrivals of an open loop are Poisson, and can be had again."""

from __future__ import annotations

import statistics
from itertools import pairwise

from superbrain.cli.load.generator import arrivals


def test_arrivals_come_at_the_rate_that_was_asked_for() -> None:
    moments = arrivals(1000, 20, seed=1)
    assert 19_000 < len(moments) < 21_000
    assert moments == sorted(moments)
    assert moments[0] > 0
    assert moments[-1] < 20


def test_gaps_are_exponential() -> None:
    moments = arrivals(1000, 20, seed=1)
    gaps = [late - early for early, late in pairwise(moments)]
    assert 0.95 < statistics.stdev(gaps) / statistics.mean(gaps) < 1.05


def test_the_same_seed_gives_the_same_load_and_another_one_another() -> None:
    assert arrivals(50, 3, seed=1) == arrivals(50, 3, seed=1)
    assert arrivals(50, 3, seed=1) != arrivals(50, 3, seed=2)
