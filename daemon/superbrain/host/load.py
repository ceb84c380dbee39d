"""How busy this machine's processors have been over the recent seconds, and how much was stolen."""

from __future__ import annotations

import collections

import psutil

from superbrain.domain.watch import HostLoad

_READINGS = 15


class LoadMeter:
    """Reads the kernel's counters now and then; a reading is about the time since some ago."""

    def __init__(self) -> None:
        self._readings: collections.deque[tuple[float, float, float]] = collections.deque(
            [_counters()], maxlen=_READINGS
        )

    def read(self) -> HostLoad:
        """Give the load since the oldest of the last readings."""
        total, idle, stolen = _counters()
        before_total, before_idle, before_stolen = self._readings[0]
        self._readings.append((total, idle, stolen))
        passed = total - before_total
        if passed <= 0:
            return HostLoad()
        busy = passed - (idle - before_idle)
        return HostLoad(
            busy_percent=min(max(100 * busy / passed, 0.0), 100.0),
            stolen_percent=min(max(100 * (stolen - before_stolen) / passed, 0.0), 100.0),
        )


def _counters() -> tuple[float, float, float]:
    """All processor seconds so far, those that were idle, those that were stolen."""
    times = psutil.cpu_times()
    stolen = getattr(times, "steal", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    others = times.user + times.system + getattr(times, "nice", 0.0)
    others += getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    return idle + others + stolen, idle, stolen
