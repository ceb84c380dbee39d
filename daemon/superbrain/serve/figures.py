"""Counting what happened to requests, cheaply enough to do it for every one of them.

Written by one thread; the control thread of a worker may read at any moment and sees figures that
are at most one request old.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from superbrain.domain.ctl import Quantiles, WorkerPong
from superbrain.domain.durations import BOUNDS_NS, Histogram
from superbrain.wire.errors import (
    DeadlineExceeded,
    Internal,
    RequestError,
    ResourceExhausted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.serve.request_durations import RequestDurations
    from superbrain.serve.stage_clock import StageClock

_WINDOW = 1024
# Who has run for so long is worth being named, should it never end.
_LONG_NS = 200_000_000


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
        ordered = sorted(self._nanoseconds)
        if not ordered:
            return Quantiles()
        last = len(ordered) - 1
        p50, p90, p99 = (ordered[round(last * share)] / 1e6 for share in (0.5, 0.9, 0.99))
        return Quantiles(p50, p90, p99, ordered[last] / 1e6)


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


class WorkerFigures:
    """What one worker has done since it started."""

    def __init__(self, durations: RequestDurations) -> None:
        self.durations = durations
        self.requests = 0
        self.direct_requests = 0
        self.direct_errors = 0
        self.ok = 0
        self.caller_errors = 0
        self.internal_errors = 0
        self.expired = 0
        self.refused = 0
        self.queued = 0
        self.batches = 0
        self.batched_requests = 0
        self.executing_since_ns = 0
        self.executing: Callable[[], list[str]] = list
        self.runs = 0
        self.executed_ns = 0
        self.longest_ns = 0
        self.last_error = ""
        self.latency = LatencyWindow()

    def finished(
        self,
        error: RequestError | None,
        arrived_ns: int,
        ended_ns: int,
        clock: StageClock | None,
        *,
        direct: bool,
    ) -> None:
        """Count one request by how it ended; only those that ended well count for latency.

        Args:
            error: what it ended with.
            arrived_ns: when it came.
            ended_ns: when its answer was ready.
            clock: of the execution it had a part in; None for one that was not executed.
            direct: it came over a caller's own lane, so that the gateway has not counted it.
        """
        self.requests += 1
        if direct:
            self.direct_requests += 1
            self.direct_errors += error is not None
        if error is None:
            self.ok += 1
            self.latency.add(ended_ns - arrived_ns)
            if clock is not None:
                self.durations.add(arrived_ns, clock, ended_ns)
        elif isinstance(error, DeadlineExceeded):
            self.expired += 1
        elif isinstance(error, ResourceExhausted):
            self.refused += 1
        elif isinstance(error, Internal):
            self.internal_errors += 1
            self.last_error = str(error)
        else:
            self.caller_errors += 1

    def answered(self, arrived_ns: int, ended_ns: int, clock: StageClock, *, direct: bool) -> None:
        """Count one request that ended well and had its run for itself: `finished` and `ran`."""
        took_ns = ended_ns - clock.began_ns
        self.requests += 1
        self.ok += 1
        self.runs += 1
        self.executed_ns += took_ns
        self.longest_ns = max(self.longest_ns, took_ns)
        if direct:
            self.direct_requests += 1
        self.latency.add(ended_ns - arrived_ns)
        self.durations.add(arrived_ns, clock, ended_ns)

    def ran(self, duration_ns: int) -> None:
        """Count one run, of one request or of a batch."""
        self.runs += 1
        self.executed_ns += duration_ns
        if duration_ns > self.longest_ns:  # noqa: PLR1730 - a built-in function takes longer
            self.longest_ns = duration_ns

    def batched(self, requests: int) -> None:
        """Count requests that were executed together."""
        self.batches += 1
        self.batched_requests += requests

    def pong(self, now_ns: int) -> WorkerPong:
        """Give the figures as the daemon wants them."""
        since_ns = self.executing_since_ns
        latency, stages = self.durations.histograms()
        return WorkerPong(
            requests=self.requests,
            direct_requests=self.direct_requests,
            direct_errors=self.direct_errors,
            ok=self.ok,
            caller_errors=self.caller_errors,
            internal_errors=self.internal_errors,
            expired=self.expired,
            refused=self.refused,
            queued=self.queued,
            batches=self.batches,
            batched_requests=self.batched_requests,
            executing_s=(now_ns - since_ns) / 1e9 if since_ns else 0.0,
            executing=self.executing() if since_ns and now_ns - since_ns > _LONG_NS else [],
            runs=self.runs,
            executed_s=self.executed_ns / 1e9,
            longest_s=self.longest_ns / 1e9,
            latency_ms=self.latency.quantiles(),
            last_error=self.last_error,
            latency=latency,
            stages=stages,
        )
