"""By which time dates are judged on a host whose clock may be wrong."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.host_time import HostTime

AT = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
TIMES = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001


@given(TIMES, TIMES)
def test_time_is_never_below_the_floor_nor_below_the_clock(
    clock: dt.datetime, floor: dt.datetime
) -> None:
    assert HostTime(clock, floor).now == max(clock, floor)


@pytest.mark.parametrize(
    ("clock", "floor", "is_set", "behind", "worth_noting"),
    [
        (AT, None, True, False, True),
        (EPOCH, None, False, False, False),
        (EPOCH, AT, True, True, False),
        (AT, AT, True, False, False),
        (AT - DAY, AT, True, False, False),
        (AT - 2 * DAY, AT, True, True, False),
        (AT + DAY, AT, True, False, True),
    ],
)
def test_what_is_known_about_a_clock(
    clock: dt.datetime, floor: dt.datetime | None, is_set: bool, behind: bool, worth_noting: bool
) -> None:
    time = HostTime(clock, floor)
    assert (time.is_set, time.behind, time.worth_noting) == (is_set, behind, worth_noting)
