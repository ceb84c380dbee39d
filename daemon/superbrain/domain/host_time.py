"""What time it is on a host whose clock may be wrong: the rules by which dates are judged.

A host without a battery starts in 1970; one with a bad one may be years ahead. So the daemon keeps
a *floor*: the latest time it has reason to believe in, from signed `created` values of what it
accepted and from its own clock. `HostTime.now` is never below the floor.

| clock | dates are judged by | and |
|---|---|---|
| at or above the floor | the clock | |
| up to a day below it | the floor | |
| more than a day below it | the floor, for `expires` alone | health says that the clock is behind |
| before 2024, no floor | nothing | the log says so |

A clock that is behind cannot tell that something comes from the future, so `created` is not judged
then: a host whose battery is dead must still take a release that was made after its last one.
"""

from __future__ import annotations

import datetime as dt

import msgspec

CLOCK_SKEW = dt.timedelta(hours=24)
CLOCK_NOT_SET_BEFORE = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NOTED_EVERY = dt.timedelta(hours=1)


class HostTime(msgspec.Struct, frozen=True):
    """The clock as it was read, and the floor; None when there is none yet."""

    clock: dt.datetime
    floor: dt.datetime | None = None

    @property
    def now(self) -> dt.datetime:
        """The time by which dates are judged."""
        return self.clock if self.floor is None else max(self.clock, self.floor)

    @property
    def is_set(self) -> bool:
        """Whether anything can be judged by it."""
        return self.now >= CLOCK_NOT_SET_BEFORE

    @property
    def behind(self) -> bool:
        """Whether the clock is known to be wrong: more than a day below the floor."""
        return self.floor is not None and self.clock < self.floor - CLOCK_SKEW

    @property
    def worth_noting(self) -> bool:
        """Whether the clock is so far above the floor that it should be written down as the new."""
        if self.clock < CLOCK_NOT_SET_BEFORE:
            return False
        return self.floor is None or self.clock >= self.floor + NOTED_EVERY
