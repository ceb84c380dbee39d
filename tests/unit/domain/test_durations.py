"""Histograms that go on when whoever counts is replaced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.durations import BOUNDS_NS, Histogram, plus_growth

COUNTS = st.lists(st.integers(0, 1000), min_size=3, max_size=3)


def test_bounds_rise_from_a_tenth_of_a_millisecond_to_half_a_minute() -> None:
    assert list(BOUNDS_NS) == sorted(set(BOUNDS_NS))
    assert (BOUNDS_NS[0], BOUNDS_NS[-1]) == (100_000, 30_000_000_000)


def test_what_was_counted_before_is_not_counted_again() -> None:
    before, now = Histogram([1, 2], 30), Histogram([1, 5], 90)
    assert plus_growth(Histogram([10, 10], 1000), now, before) == Histogram([10, 13], 1060)


def test_who_begins_at_zero_takes_nothing_away() -> None:
    total = plus_growth(Histogram(), Histogram([4, 0], 8), Histogram())
    assert plus_growth(total, Histogram(), Histogram()) == total
    assert plus_growth(total, Histogram([0, 1], 5), Histogram()) == Histogram([4, 1], 13)


@given(COUNTS, COUNTS, COUNTS)
def test_a_total_never_goes_backwards(total: list[int], before: list[int], more: list[int]) -> None:
    now = [one + other for one, other in zip(before, more, strict=True)]
    grown = plus_growth(Histogram(total), Histogram(now), Histogram(before))
    assert all(after >= one for after, one in zip(grown.counts, total, strict=True))
    assert grown.count == sum(total) + sum(more)
