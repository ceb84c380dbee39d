"""Requests that were answered: taken down as rows in a buffer, counted many at a time.

A row costs little to leave, for compiled code as for Python; counting 256 of them together costs a
fraction of doing so one by one. One thread writes. Any other may ask at any moment: what is counted
and what is not yet are replaced together, in one assignment, and no row is written twice.

The buffer is native int64: how many rows are there, then room for `ROWS` of them, each

    arrived_ns, began_ns, first_ns, engine_ns, ended_ns, flags

Who writes takes `room`, writes the row behind those that are there, then raises their number, and
calls `full` when it has become `ROWS`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from superbrain.domain.ctl import Quantiles
from superbrain.domain.durations import BOUNDS_NS, STAGES, Histogram, Stage

if TYPE_CHECKING:
    from superbrain.serve.stage_clock import StageClock

    _Integers = np.ndarray[Any, np.dtype[np.int64]]

ROWS: Final = 256
# The flags of a row: it came over a caller's own lane, so that the gateway has not counted it; it
# had its run for itself, so that it counts as one, from its beginning to its end.
DIRECT: Final = 1
ALONE: Final = 2

_LATEST = 1024
_BOUNDS = np.array(BOUNDS_NS, np.int64)
_BUCKETS = len(BOUNDS_NS) + 1
_FILLED = struct.Struct("q")
_ROW = struct.Struct("6q")
_FILLED_BYTES, _ROW_BYTES = _FILLED.size, _ROW.size
_filled_of, _set_filled, _write_row = _FILLED.unpack_from, _FILLED.pack_into, _ROW.pack_into


class Totals(NamedTuple):
    """What has been answered since the start.

    `direct` of the `answered` came over a caller's own lane. Those that had their runs for
    themselves had `runs`, which took `executed_ns`, the longest of them `longest_ns`. `counts` and
    `sums_ns` have a row for each stage and one for the whole: in each bucket, and all of it.
    `latest_ns` is how long the latest took, the newest at the end.
    """

    answered: int
    direct: int
    runs: int
    executed_ns: int
    longest_ns: int
    counts: _Integers
    sums_ns: _Integers
    latest_ns: _Integers

    def quantiles(self) -> Quantiles:
        """Give the nearest-rank quantiles of the latest in milliseconds; zeros without any."""
        ordered = sorted(self.latest_ns.tolist())
        if not ordered:
            return Quantiles()
        last = len(ordered) - 1
        p50, p90, p99 = (ordered[round(last * share)] / 1e6 for share in (0.5, 0.9, 0.99))
        return Quantiles(p50, p90, p99, ordered[last] / 1e6)

    def histograms(self) -> tuple[Histogram, dict[Stage, Histogram]]:
        """Give those of the whole and of the stages."""
        pairs = zip(self.counts.tolist(), self.sums_ns.tolist(), strict=True)
        *stages, whole = (Histogram(counts, sum_ns) for counts, sum_ns in pairs)
        return whole, dict(zip(STAGES, stages, strict=True))


class Tally:
    """Counts all requests that were answered since the start.

    Attributes:
        room: the buffer that rows go into now; another one after `full`.
    """

    __slots__ = ("_state", "room")

    def __init__(self) -> None:
        self.room = _new_room()
        self._state = (_nothing(), self.room)

    def add(
        self, arrived_ns: int, clock: StageClock, ended_ns: int, *, direct: bool, alone: bool
    ) -> None:
        """Count one request: from its arrival to its answer, and its execution."""
        flags = DIRECT * direct + ALONE * alone
        began_ns, first_ns, engine_ns = clock.began_ns, clock.first_ns, clock.engine_ns
        self._add(arrived_ns, began_ns, first_ns, engine_ns, ended_ns, flags)

    def add_whole(self, arrived_ns: int, ended_ns: int) -> None:
        """Count one request of whose stages nothing is known here."""
        self._add(arrived_ns, arrived_ns, 0, 0, ended_ns, 0)

    def _add(self, *row: int) -> None:
        room = self.room
        (filled,) = _filled_of(room)
        _write_row(room, _FILLED_BYTES + filled * _ROW_BYTES, *row)
        filled += 1
        _set_filled(room, 0, filled)
        if filled == ROWS:
            self.full()

    def full(self) -> None:
        """Count all rows; the next ones go into a new buffer."""
        room = _new_room()
        self._state = (self.totals(), room)
        self.room = room

    def totals(self) -> Totals:
        """Give what there is at one moment; any thread may ask."""
        counted, room = self._state
        (filled,) = _filled_of(room)
        if not filled:
            return counted
        rows = np.frombuffer(room, np.int64, offset=_FILLED_BYTES).reshape(ROWS, -1)
        return _plus(counted, rows[:filled])


def _new_room() -> bytearray:
    return bytearray(_FILLED_BYTES + ROWS * _ROW_BYTES)


def _nothing() -> Totals:
    histograms = len(STAGES) + 1
    counts = np.zeros((histograms, _BUCKETS), np.int64)
    return Totals(0, 0, 0, 0, 0, counts, np.zeros(histograms, np.int64), np.zeros(0, np.int64))


def _plus(counted: Totals, rows: _Integers) -> Totals:
    """Count rows too."""
    arrived, began, _, _, ended, flags = rows.T
    runs = (ended - began)[(flags & ALONE) != 0]
    parts = _parts(rows)
    buckets = np.searchsorted(_BOUNDS, parts)
    counts = np.stack([np.bincount(row, minlength=_BUCKETS) for row in buckets])
    return Totals(
        answered=counted.answered + len(rows),
        direct=counted.direct + int(np.count_nonzero(flags & DIRECT)),
        runs=counted.runs + len(runs),
        executed_ns=counted.executed_ns + int(runs.sum()),
        longest_ns=int(runs.max(initial=counted.longest_ns)),
        counts=counted.counts + counts,
        sums_ns=counted.sums_ns + parts.sum(axis=1),
        latest_ns=np.concatenate((counted.latest_ns, ended - arrived))[-_LATEST:],
    )


def _parts(rows: _Integers) -> _Integers:
    """Give how long the stages took, which are those of `StageClock.times`, and the whole."""
    arrived, began, first, engine, ended, _ = rows.T
    first = np.where(first == 0, ended, np.maximum(first, began))
    rest = ended - first
    engine = np.minimum(engine, rest)
    return np.stack((began - arrived, first - began, engine, rest - engine, ended - arrived))
