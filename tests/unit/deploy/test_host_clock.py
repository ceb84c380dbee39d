"""The latest time a host has seen: it outlives the daemon, and a typing error does not raise it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from superbrain.deploy.host_clock import HostClock
from superbrain.deploy.journal import Journal

AT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def standing(at: dt.datetime) -> Callable[[], dt.datetime]:
    return lambda: at


def test_the_floor_outlives_the_daemon(journal: Journal) -> None:
    HostClock(journal, standing(AT)).note()
    later = HostClock(journal, standing(EPOCH))
    assert later.time().now == AT
    (problem,) = later.problems()
    assert "1970-01-01" in problem.message


def test_what_is_signed_raises_the_floor_but_never_lowers_it(journal: Journal) -> None:
    clock = HostClock(journal, standing(AT))
    clock.believe(AT - DAY)
    clock.believe(AT - 2 * DAY)
    assert clock.time().floor == AT - DAY


def test_a_mistyped_date_does_not_raise_it_beyond_a_good_clock(journal: Journal) -> None:
    clock = HostClock(journal, standing(AT))
    clock.believe(AT + 9999 * DAY)
    assert clock.time().floor == AT + DAY
    assert clock.problems() == []


def test_a_clock_that_is_not_set_learns_from_what_is_signed(journal: Journal) -> None:
    clock = HostClock(journal, standing(EPOCH))
    clock.note()
    assert clock.time().floor is None
    clock.believe(AT)
    clock.believe(AT + 900 * DAY)
    assert clock.time().now == AT + 900 * DAY


def test_the_clock_is_noted_once_an_hour(journal: Journal) -> None:
    clock = HostClock(journal, standing(AT))
    clock.note()
    HostClock(journal, standing(AT + DAY / 48)).note()
    assert HostClock(journal, standing(AT)).time().floor == AT
    HostClock(journal, standing(AT + DAY)).note()
    assert HostClock(journal, standing(AT)).time().floor == AT + DAY


def test_a_floor_can_be_forgotten(journal: Journal) -> None:
    clock = HostClock(journal, standing(EPOCH))
    clock.believe(AT)
    clock.forget()
    assert HostClock(journal, standing(EPOCH)).problems() == []
