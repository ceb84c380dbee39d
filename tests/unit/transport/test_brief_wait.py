"""Waits that follow short ones look for a moment before they sleep."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, cast

import pytest

from superbrain.transport.brief_wait import CROWDED_NS, MOMENT_NS, BriefWait

if TYPE_CHECKING:
    import select

    from superbrain.transport.lane_socket import LaneSocket
    from superbrain.wire.lane import LaneFrame

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


class OneLane:
    """A lane on which a frame comes after so long, or nothing.

    Attributes:
        looks: the moments and limits that it was looked at with.
    """

    def __init__(self, host: Host, *, frame_after_ns: int | None, crowded: bool = False) -> None:
        self._host = host
        self._frame_after_ns = frame_after_ns
        self._crowded = crowded
        self.looks: list[tuple[int, int]] = []

    def look(self, moment_ns: int, crowded_ns: int) -> tuple[list[LaneFrame], bool]:
        self.looks.append((moment_ns, crowded_ns))
        after_ns = self._frame_after_ns
        self._host.now_ns += moment_ns if after_ns is None else after_ns
        return [] if after_ns is None else [cast("LaneFrame", object())], self._crowded

    def receive(self, wait: BriefWait) -> int:
        """How many frames are found."""
        return len(wait.receive(cast("LaneSocket", self)))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(time, "monotonic_ns", host.monotonic_ns)
    monkeypatch.setattr(os, "sched_yield", host.sched_yield)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    return host


def brief_wait(host: Host, lane_moment_ns: int = MOMENT_NS) -> BriefWait:
    return BriefWait(cast("select.epoll", host), lane_moment_ns)


def brief(wait: BriefWait) -> bool:
    return wait.brief


def sleeps(host: Host, wait: BriefWait) -> int:
    """How many short waits sleep before one looks."""
    slept = 0
    while not brief(wait):
        assert not host.looks(wait, news_after_ns=10)
        slept += 1
        assert slept < 100
    return slept


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


def test_a_lane_is_looked_at_only_behind_a_brief_wait(host: Host) -> None:
    wait = brief_wait(host)
    lane = OneLane(host, frame_after_ns=10)

    assert not brief(wait)
    assert lane.receive(wait) == 0
    assert lane.looks == []

    host.looks(wait, news_after_ns=10)
    assert brief(wait)
    assert lane.receive(wait) == 1
    assert lane.looks == [(MOMENT_NS, CROWDED_NS)]


def test_a_frame_that_was_found_keeps_waits_brief(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)
    lane = OneLane(host, frame_after_ns=MOMENT_NS - 1)

    assert [lane.receive(wait) for _ in range(3)] == [1, 1, 1]
    assert brief(wait)
    assert host.looks(wait, news_after_ns=MOMENT_NS // 2)


def test_a_wait_that_has_looked_at_a_lane_in_vain_goes_on_asleep(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)
    lane = OneLane(host, frame_after_ns=None)

    assert lane.receive(wait) == 0
    assert not brief(wait)
    assert lane.receive(wait) == 0
    assert len(lane.looks) == 1
    assert not host.looks(wait, news_after_ns=10)
    assert host.waits == [None]


def test_the_look_at_a_lane_counts_as_part_of_the_wait(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)

    OneLane(host, frame_after_ns=None).receive(wait)
    host.looks(wait, news_after_ns=10)
    assert not brief(wait)  # for it took the moment of the look, and the sleep

    host.looks(wait, news_after_ns=10)
    assert brief(wait)  # for that is not counted twice


def test_a_crowded_look_at_a_lane_makes_many_waits_sleep(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)

    OneLane(host, frame_after_ns=None, crowded=True).receive(wait)
    assert sleeps(host, wait) == 16 + 1  # the one behind them was short
    assert host.looks(wait, news_after_ns=10)


def test_a_frame_that_came_to_a_crowded_lane_keeps_waits_brief(host: Host) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)

    assert OneLane(host, frame_after_ns=10, crowded=True).receive(wait) == 1
    assert host.looks(wait, news_after_ns=10)


@pytest.mark.parametrize("crowded", [False, True])
def test_whoever_looked_by_itself_says_so(host: Host, crowded: bool) -> None:
    wait = brief_wait(host)
    host.looks(wait, news_after_ns=10)

    wait.looked(crowded=crowded)
    assert not brief(wait)
    assert sleeps(host, wait) == (17 if crowded else 2)


def test_a_lane_may_be_looked_at_for_longer_than_all_are(host: Host) -> None:
    moment_ns = 4 * MOMENT_NS
    wait = brief_wait(host, moment_ns)
    lane = OneLane(host, frame_after_ns=10)

    host.looks(wait, news_after_ns=moment_ns - 10)
    assert brief(wait)
    assert lane.receive(wait) == 1
    assert lane.looks == [(moment_ns, CROWDED_NS)]
    assert not host.looks(wait, news_after_ns=moment_ns - 10)
    assert brief(wait)
    host.looks(wait, news_after_ns=moment_ns + 10)
    assert not brief(wait)


def test_on_one_processor_no_lane_is_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    wait = brief_wait(host)
    lane = OneLane(host, frame_after_ns=10)

    for _ in range(3):
        host.looks(wait, news_after_ns=10)
        assert lane.receive(wait) == 0
    assert lane.looks == []
