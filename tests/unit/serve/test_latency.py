"""How long requests took: quantiles over a moving window, and buckets."""

from __future__ import annotations

import pytest

from superbrain.domain.ctl import Quantiles
from superbrain.serve.latency import Durations, LatencyWindow


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


@pytest.mark.parametrize(("duration_ns", "bucket"), [(0, 0), (100_000, 0), (100_001, 1)])
def test_a_bound_belongs_to_its_bucket(duration_ns: int, bucket: int) -> None:
    durations = Durations()
    durations.add(duration_ns)
    durations.add(10**12)
    histogram = durations.histogram()
    assert histogram.counts[bucket] == histogram.counts[-1] == 1
    assert histogram.sum_ns == duration_ns + 10**12
