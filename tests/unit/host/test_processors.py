"""What is read of /proc/stat, and what load is made of it."""

from __future__ import annotations

import pytest

from superbrain.domain.watch import HostLoad
from superbrain.host import load
from superbrain.host.load import LoadMeter
from superbrain.host.processors import Counters, counters, parse

STAT = b"""\
cpu  100 20 30 4000 50 6 7 80 90 9
cpu0 100 20 30 4000 50 6 7 80 90 9
intr 8885920 38 9 0 0
ctxt 15234
btime 1795632927
processes 26442
"""


def test_guests_are_counted_once_and_waiting_for_a_disk_is_idle() -> None:
    assert parse(STAT, 100) == Counters(42.93, 40.5, 0.8, 1795632927.0)


def test_an_old_kernel_that_counts_less_is_read_too() -> None:
    assert parse(b"cpu 1 2 3 4\n", 1) == Counters(10.0, 4.0, 0.0, 0.0)


def test_who_asks_at_once_again_gets_the_same_reading() -> None:
    assert counters() is counters()


def test_the_load_is_that_since_the_oldest_of_the_last_readings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = Counters(1000.0, 500.0, 0.0, 0.0)
    monkeypatch.setattr(load, "counters", lambda: now)
    meter = LoadMeter()
    assert meter.read() == HostLoad(), "no time has passed"
    now = Counters(1100.0, 525.0, 10.0, 0.0)
    assert meter.read() == HostLoad(busy_percent=75.0, stolen_percent=10.0)
    assert meter.read() == HostLoad(busy_percent=75.0, stolen_percent=10.0)
