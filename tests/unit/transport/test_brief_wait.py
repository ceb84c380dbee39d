"""Waits that follow short ones look for a moment before they sleep."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, cast

import pytest

from superbrain.transport.brief_wait import MOMENT_NS, BriefWait

if TYPE_CHECKING:
    import select

NEWS = [(7, 1)]


class Host:
    """An epoll, a clock and a processor to give way on, of which a test decides how long all take.

    Attributes:
        waits: the time-outs of the calls of the epoll: 0 for a look, else a sleep.
    """

    def __init__(self) -> None:
        self.now_ns = 10**15
        self.news_at_ns = 0
        self.sleep_ns = 0
        self.crowd_ns = 0
        self.waits: list[float | None] = []

    def poll(self, timeout_s: float | None, _max_events: int) -> list[tuple[int, int]]:
        self.waits.append(timeout_s)
        if timeout_s == 0:
            self.now_ns += 1_000
            return NEWS if self.now_ns >= self.news_at_ns else []
        self.now_ns += self.sleep_ns
        return NEWS

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sched_yield(self) -> None:
        self.now_ns += self.crowd_ns

    def looks(self, wait: BriefWait, *, news_after_ns: int) -> bool:
        """Wait for news that come after so long; whether it was looked for."""
        self.waits.clear()
        self.news_at_ns = self.now_ns + news_after_ns
        self.sleep_ns = news_after_ns
        assert wait.poll() == NEWS
        return self.waits[0] == 0


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(time, "monotonic_ns", host.monotonic_ns)
    monkeypatch.setattr(os, "sched_yield", host.sched_yield)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    return host


def brief_wait(host: Host) -> BriefWait:
    return BriefWait(cast("select.epoll", host))


def test_the_first_wait_sleeps(host: Host) -> None:
    assert not host.looks(brief_wait(host), news_after_ns=10)


def test_a_wait_behind_a_short_one_looks_and_does_not_sleep(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=MOMENT_NS // 2)

    assert host.looks(wait, news_after_ns=MOMENT_NS // 2)
    assert set(host.waits) == {0}
    assert len(host.waits) > 10


def test_who_looks_in_vain_sleeps_then_and_the_next_time(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)

    assert host.looks(wait, news_after_ns=3 * MOMENT_NS)
    assert host.waits[-1] is None
    assert host.waits.count(0) <= MOMENT_NS // 1_000
    assert not host.looks(wait, news_after_ns=3 * MOMENT_NS)
    assert not host.looks(wait, news_after_ns=10)
    assert host.looks(wait, news_after_ns=10)


def test_where_somebody_wants_the_processor_many_waits_sleep(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)
    host.crowd_ns = MOMENT_NS - 10_000

    assert host.looks(wait, news_after_ns=3 * MOMENT_NS)
    assert host.waits == [0, None]
    slept = 0
    while not host.looks(wait, news_after_ns=10):
        slept += 1
    assert 10 <= slept <= 100


def test_on_one_processor_nobody_looks(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    wait = brief_wait(host)

    assert not any(host.looks(wait, news_after_ns=10) for _ in range(5))


def test_a_time_out_is_the_sleepers(host: Host) -> None:
    assert brief_wait(host).poll(2.5) == NEWS
    assert host.waits == [2.5]


def test_who_will_not_wait_so_long_does_not_look(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)
    host.waits.clear()
    host.news_at_ns = host.now_ns + 10

    wait.poll(0)
    wait.poll(MOMENT_NS / 2e9)

    assert host.waits == [0, MOMENT_NS / 2e9]
