"""Counting what happened to requests, cheaply enough to do it for every one of them.

What was answered is in the tally, all else here. Written by one thread; the control thread of a
worker may read at any moment and sees figures that are at most one request old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.domain.ctl import WorkerPong
from superbrain.serve.tally import Tally
from superbrain.wire.errors import (
    DeadlineExceeded,
    Internal,
    RequestError,
    ResourceExhausted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.serve.stage_clock import StageClock

# Who has run for so long is worth being named, should it never end.
_LONG_NS = 200_000_000


class WorkerFigures:
    """What one worker has done since it started."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.direct_errors = 0
        self.caller_errors = 0
        self.internal_errors = 0
        self.expired = 0
        self.refused = 0
        self.queued = 0
        self.batches = 0
        self.batched_requests = 0
        self.executing_since_ns = 0
        self.executing: Callable[[], list[str]] = list
        self.last_error = ""
        self._runs = self._executed_ns = self._longest_ns = 0  # without those of the tally

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
        if error is None:
            assert clock is not None  # noqa: S101 - nothing ends well without being executed
            self.tally.add(arrived_ns, clock, ended_ns, direct=direct, alone=False)
            return
        self.direct_errors += direct
        if isinstance(error, DeadlineExceeded):
            self.expired += 1
        elif isinstance(error, ResourceExhausted):
            self.refused += 1
        elif isinstance(error, Internal):
            self.internal_errors += 1
            self.last_error = str(error)
        else:
            self.caller_errors += 1

    def ran(self, duration_ns: int) -> None:
        """Count one run, of one request or of a batch."""
        self._runs += 1
        self._executed_ns += duration_ns
        if duration_ns > self._longest_ns:  # noqa: PLR1730 - a built-in function takes longer
            self._longest_ns = duration_ns

    def batched(self, requests: int) -> None:
        """Count requests that were executed together."""
        self.batches += 1
        self.batched_requests += requests

    def pong(self, now_ns: int) -> WorkerPong:
        """Give the figures as the daemon wants them."""
        since_ns = self.executing_since_ns
        totals = self.tally.totals()
        latency, stages = totals.histograms()
        errors = self.caller_errors + self.internal_errors + self.expired + self.refused
        return WorkerPong(
            requests=totals.answered + errors,
            direct_requests=totals.direct + self.direct_errors,
            direct_errors=self.direct_errors,
            ok=totals.answered,
            caller_errors=self.caller_errors,
            internal_errors=self.internal_errors,
            expired=self.expired,
            refused=self.refused,
            queued=self.queued,
            batches=self.batches,
            batched_requests=self.batched_requests,
            executing_s=(now_ns - since_ns) / 1e9 if since_ns else 0.0,
            executing=self.executing() if since_ns and now_ns - since_ns > _LONG_NS else [],
            runs=totals.runs + self._runs,
            executed_s=(totals.executed_ns + self._executed_ns) / 1e9,
            longest_s=max(totals.longest_ns, self._longest_ns) / 1e9,
            latency_ms=totals.quantiles(),
            last_error=self.last_error,
            latency=latency,
            stages=stages,
        )
