"""What the kernel has counted of this machine's processors, from one reading of /proc/stat.

It is read at most once a second, whoever asks: on a machine with many interrupts it is a long file.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

READ_AGAIN_S: Final = 1.0
_STAT: Final = Path("/proc/stat")
_COUNTED: Final = 8  # the two after them, of guests, are within the first two
_IDLE, _IOWAIT, _STEAL = 3, 4, 7


class Counters(NamedTuple):
    """Processor seconds since the machine was started, and when that was (Unix time)."""

    total_s: float
    idle_s: float
    stolen_s: float
    booted_at: float


def counters() -> Counters:
    """Give what was counted up to the last second."""
    return _reader().read()


def parse(stat: bytes, ticks_per_s: int) -> Counters:
    """Read the sum of all processors, the first line, and the time of the start, `btime`."""
    line = stat.split(b"\n", 1)[0].split()
    ticks = [int(word) for word in line[1 : _COUNTED + 1]]
    ticks += [0] * (_COUNTED - len(ticks))
    begin = stat.find(b"\nbtime ")
    booted_at = float(stat[begin + 7 :].split(None, 1)[0]) if begin >= 0 else 0.0
    idle = ticks[_IDLE] + ticks[_IOWAIT]
    return Counters(
        sum(ticks) / ticks_per_s, idle / ticks_per_s, ticks[_STEAL] / ticks_per_s, booted_at
    )


class _Reader:
    def __init__(self) -> None:
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._read_at = float("-inf")

    def read(self) -> Counters:
        now = time.monotonic()
        if now - self._read_at >= READ_AGAIN_S:
            self._found = parse(_STAT.read_bytes(), self._ticks_per_s)
            self._read_at = now
        return self._found


@functools.cache
def _reader() -> _Reader:
    return _Reader()
