"""How long requests took, noted one by one: the latest for quantiles, all of them in buckets."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from superbrain.domain.ctl import Quantiles
from superbrain.domain.durations import BOUNDS_NS, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable

_WINDOW = 1024


def quantiles_of(durations_ns: Iterable[int]) -> Quantiles:
    """Give the nearest-rank quantiles in milliseconds; zeros when there is nothing."""
    ordered = sorted(durations_ns)
    if not ordered:
        return Quantiles()
    last = len(ordered) - 1
    p50, p90, p99 = (ordered[round(last * share)] / 1e6 for share in (0.5, 0.9, 0.99))
    return Quantiles(p50, p90, p99, ordered[last] / 1e6)


class LatencyWindow:
    """Durations of the most recent requests, for quantiles without a histogram's bucket edges."""

    def __init__(self, size: int = _WINDOW) -> None:
        self._size = size
        self._nanoseconds: list[int] = []
        self._next = 0

    def add(self, duration_ns: int) -> None:
        """Take note of one request."""
        if len(self._nanoseconds) < self._size:
            self._nanoseconds.append(duration_ns)
            return
        self._nanoseconds[self._next] = duration_ns
        self._next = (self._next + 1) % self._size

    def quantiles(self) -> Quantiles:
        """Give the nearest-rank quantiles of the window in milliseconds; zeros when it is empty."""
        return quantiles_of(self._nanoseconds)


class Durations:
    """Durations of everything since the start, in the buckets of domain/durations.py."""

    __slots__ = ("_counts", "_sum_ns")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_NS) + 1)
        self._sum_ns = 0

    def add(self, duration_ns: int) -> None:
        """Take note of one duration."""
        self._counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self._sum_ns += duration_ns

    def histogram(self) -> Histogram:
        """Give what there is now; any thread may ask."""
        return Histogram(list(self._counts), self._sum_ns)
