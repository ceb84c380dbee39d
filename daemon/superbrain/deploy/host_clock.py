"""This host's clock, and the latest time it has reason to believe in, which outlives the daemon.

The rules are in domain/host_time.py. The floor rises with the signed `created` of what is accepted
and, once an hour, with the clock itself. An operator may forget it, after a clock that was ahead.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

from superbrain.deploy.journal_file import JournalError
from superbrain.domain.health import Problem
from superbrain.domain.host_time import CLOCK_SKEW, HostTime
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.deploy.journal import Journal

log = logging.getLogger(__name__)

_FACT = "time_floor"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class HostClock:
    """Tells the time by which dates are judged."""

    def __init__(self, journal: Journal, now: Callable[[], dt.datetime] = _now) -> None:
        self._journal = journal
        self._now = now
        found = journal.fact(_FACT)
        self._floor = dt.datetime.fromisoformat(found) if found else None
        if self.time().behind:
            event(log, Event.CLOCK_BEHIND, logging.WARNING, self._sentence())

    def time(self) -> HostTime:
        """Read the clock."""
        return HostTime(self._now(), self._floor)

    def believe(self, created: dt.datetime) -> None:
        """Raise the floor to a time that somebody trusted has signed.

        Not beyond a clock that there is no reason to doubt: people mistype dates.
        """
        time = self.time()
        if time.is_set and not time.behind:
            created = min(created, time.now + CLOCK_SKEW)
        if self._floor is None or created > self._floor:
            self._set(created)

    def note(self) -> None:
        """Raise the floor to the clock, if that is worth a write."""
        time = self.time()
        if time.worth_noting:
            self._set(time.clock)

    def forget(self) -> None:
        """Begin anew: the clock was ahead and has been set right.

        Raises:
            JournalError: it cannot be written; nothing has changed.
        """
        self._journal.set_fact(_FACT, "")
        self._floor = None

    def problems(self) -> list[Problem]:
        """Say that the clock is behind, if it is."""
        if not self.time().behind:
            return []
        mend = (
            "Set the clock. If it is right and was ahead before: superbrain trust forget-time. "
            "What serves is not concerned"
        )
        return [Problem("warning", "clock", self._sentence(), mend)]

    def _sentence(self) -> str:
        time = self.time()
        return (
            f"the clock says {time.clock:%Y-%m-%d %H:%M} UTC, which is before "
            f"{time.now:%Y-%m-%d %H:%M} UTC, a time that this host has seen; dates are judged by "
            f"the later one"
        )

    def _set(self, floor: dt.datetime) -> None:
        try:
            self._journal.set_fact(_FACT, floor.isoformat())
        except JournalError as error:  # the next hour tries again, and health says it
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))
        self._floor = floor
