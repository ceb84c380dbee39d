"""How busy this machine's processors have been over the recent seconds, and how much was stolen."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from superbrain.domain.watch import HostLoad
from superbrain.host.processors import counters

if TYPE_CHECKING:
    from superbrain.host.processors import Counters

_READINGS = 15


class LoadMeter:
    """Reads the kernel's counters now and then; a reading is about the time since some ago."""

    def __init__(self) -> None:
        self._readings: collections.deque[Counters] = collections.deque(
            [counters()], maxlen=_READINGS
        )

    def read(self) -> HostLoad:
        """Give the load since the oldest of the last readings."""
        now, before = counters(), self._readings[0]
        if now is not self._readings[-1]:
            self._readings.append(now)
        passed = now.total_s - before.total_s
        if passed <= 0:
            return HostLoad()
        busy = passed - (now.idle_s - before.idle_s)
        return HostLoad(
            busy_percent=_percent(busy, passed),
            stolen_percent=_percent(now.stolen_s - before.stolen_s, passed),
        )


def _percent(part: float, whole: float) -> float:
    return min(max(100 * part / whole, 0.0), 100.0)
