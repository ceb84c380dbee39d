"""Waiting for what is nearly there: look for a moment before going to sleep.

To be put to sleep and woken again, and then to run cold, takes longer than a small model takes to
answer, or its asker to ask again. So a wait that follows a short one looks again and again, for a
moment at most, and lets whoever else wants the processor have it in between. After a longer wait
the next one sleeps at once; where somebody did want the processor, so do the next many.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import select

MOMENT_NS: Final = 100_000
_MOMENT_S: Final = MOMENT_NS / 1e9
_MAX_EVENTS: Final = 64  # what is left comes with the next call
# Who gives way for longer than this gave the processor to somebody.
_CROWDED_NS: Final = 50_000
_SLEEPS_WHEN_CROWDED: Final = 16


class BriefWait:
    """Waits on one epoll. Threads may share it: what it remembers is only how long waits are."""

    def __init__(self, epoll: select.epoll) -> None:
        self._poll = epoll.poll
        self._brief = False
        self._sleeps = 0  # so many waits do not look
        # Where there is only one processor, who is waited for needs it.
        self._alone = len(os.sched_getaffinity(0)) < 2

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, int]]:
        """Give what is ready, at once or as soon as something is; nothing after `timeout_s`."""
        if timeout_s is not None and timeout_s < _MOMENT_S:
            return self._poll(timeout_s, _MAX_EVENTS)
        began_ns = time.monotonic_ns()
        ready = self._look(began_ns) if self._brief else []
        if not ready:
            ready = self._poll(timeout_s, _MAX_EVENTS)
        if self._sleeps:
            self._sleeps -= 1
        else:
            self._brief = not self._alone and time.monotonic_ns() - began_ns < MOMENT_NS
        return ready

    def _look(self, now_ns: int) -> list[tuple[int, int]]:
        poll, give_way, clock_ns = self._poll, os.sched_yield, time.monotonic_ns
        until_ns = now_ns + MOMENT_NS
        while now_ns < until_ns:
            ready = poll(0, _MAX_EVENTS)
            if ready:
                return ready
            give_way()
            before_ns, now_ns = now_ns, clock_ns()
            if now_ns - before_ns > _CROWDED_NS:
                self._brief, self._sleeps = False, _SLEEPS_WHEN_CROWDED
                break
        return []
