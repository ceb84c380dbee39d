"""Durations of requests and their stages: taken down as requests end, counted many at a time.

A request leaves five numbers in a buffer; when it is full they are sorted into buckets together,
which costs a fraction of doing so one by one. One thread adds. Any other may ask at any moment:
what is counted and what is not yet are replaced together, in one assignment.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from superbrain.domain.durations import BOUNDS_NS, STAGES, Histogram

if TYPE_CHECKING:
    from superbrain.serve.stage_clock import StageClock

_BOUNDS = np.array(BOUNDS_NS, np.int64)
_BUCKETS = len(BOUNDS_NS) + 1
_FIELDS = 5
_ENTRY = struct.Struct(f"{_FIELDS}q")
_ENTRY_BYTES = _ENTRY.size
_ROOM_BYTES = 256 * _ENTRY_BYTES
_pack_into = _ENTRY.pack_into


class _Counted(NamedTuple):
    """A row for each stage and one for the whole: in each bucket, and all of it in nanoseconds."""

    counts: np.ndarray[Any, np.dtype[np.int64]]
    sums_ns: np.ndarray[Any, np.dtype[np.int64]]


class _Waiting:
    """Entries that are not counted yet: `filled_bytes` of the buffer."""

    __slots__ = ("data", "filled_bytes")

    def __init__(self) -> None:
        self.data = bytearray(_ROOM_BYTES)
        self.filled_bytes = 0


class RequestDurations:
    """Durations of all requests since the start, in the buckets of domain/durations.py."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        rows = len(STAGES) + 1
        nothing = _Counted(np.zeros((rows, _BUCKETS), np.int64), np.zeros(rows, np.int64))
        self._state = (nothing, _Waiting())

    def add(self, arrived_ns: int, clock: StageClock, ended_ns: int) -> None:
        """Take note of one request: from its arrival to its answer, and of its execution."""
        waiting = self._state[1]
        at = waiting.filled_bytes
        began_ns, first_ns, engine_ns = clock.began_ns, clock.first_ns, clock.engine_ns
        _pack_into(waiting.data, at, arrived_ns, began_ns, first_ns, engine_ns, ended_ns)
        waiting.filled_bytes = at = at + _ENTRY_BYTES
        if at == _ROOM_BYTES:
            self._state = (_with(self._state[0], waiting), _Waiting())

    def histograms(self) -> tuple[Histogram, dict[str, Histogram]]:
        """Give those of the whole and of the stages; any thread may ask."""
        counted, waiting = self._state
        counted = _with(counted, waiting)
        pairs = zip(counted.counts.tolist(), counted.sums_ns.tolist(), strict=True)
        *stages, whole = (Histogram(counts, sum_ns) for counts, sum_ns in pairs)
        return whole, dict(zip(STAGES, stages, strict=True))


def _with(counted: _Counted, waiting: _Waiting) -> _Counted:
    """Count what waits too; the stages are those of `StageClock.times`."""
    filled = waiting.filled_bytes
    if not filled:
        return counted
    numbers = np.frombuffer(waiting.data, np.int64, filled // 8).reshape(-1, _FIELDS)
    arrived, began, first, engine, ended = numbers.T
    first = np.where(first == 0, ended, np.maximum(first, began))
    rest = ended - first
    engine = np.minimum(engine, rest)
    parts = np.stack((began - arrived, first - began, engine, rest - engine, ended - arrived))
    buckets = np.searchsorted(_BOUNDS, parts)
    counts = np.stack([np.bincount(row, minlength=_BUCKETS) for row in buckets])
    return _Counted(counted.counts + counts, counted.sums_ns + parts.sum(axis=1))
