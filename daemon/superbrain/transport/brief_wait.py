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

    from superbrain.transport.lane_socket import LaneSocket
    from superbrain.wire.lane import LaneFrame

MOMENT_NS: Final = 100_000
_MAX_EVENTS: Final = 64  # what is left comes with the next call
# Who gives way for longer than this gave the processor to somebody.
CROWDED_NS: Final = 50_000
_SLEEPS_WHEN_CROWDED: Final = 16
_NOT_BRIEF_NS: Final = 1 << 63


class BriefWait:
    """Waits on one epoll. Threads may share it: what it remembers is only how long waits are.

    `lane_moment_ns`: how long one lane is looked at, whose other end has a processor for itself.
    """

    def __init__(self, epoll: select.epoll, lane_moment_ns: int = MOMENT_NS) -> None:
        self.lane_moment_ns: Final = lane_moment_ns
        self._poll = epoll.poll
        self._last_ns = _NOT_BRIEF_NS  # how long the last wait was
        self._sleeps = 0  # so many waits do not look
        self._began_ns = 0  # a wait that goes on, which has looked
        # Where there is only one processor, who is waited for needs it.
        self._alone = len(os.sched_getaffinity(0)) < 2

    def poll(self, timeout_s: float | None = None) -> list[tuple[int, int]]:
        """Give what is ready, at once or as soon as something is; nothing after `timeout_s`."""
        if timeout_s is not None and timeout_s < MOMENT_NS / 1e9:
            self._began_ns = 0
            return self._poll(timeout_s, _MAX_EVENTS)
        began_ns = self._began_ns or time.monotonic_ns()
        self._began_ns = 0
        ready = self._look(began_ns) if self._last_ns < MOMENT_NS else []
        if not ready:
            ready = self._poll(timeout_s, _MAX_EVENTS)
        if self._sleeps:
            self._sleeps -= 1
        elif not self._alone:
            self._last_ns = time.monotonic_ns() - began_ns
        return ready

    def receive(self, lane: LaneSocket) -> list[LaneFrame]:
        """Look for frames on one lane, if the last wait was brief; `poll` then goes on.

        Raises:
            LaneError: as of the lane.
        """
        if not self.brief:
            return []
        frames, crowded = lane.look(self.lane_moment_ns, CROWDED_NS)
        if not frames:
            self.looked(crowded=crowded)
        return frames

    @property
    def brief(self) -> bool:
        """Whether a lane is looked at before the next wait."""
        return self._last_ns < self.lane_moment_ns

    def looked(self, *, crowded: bool) -> None:
        """Take note of a look that was in vain; `poll` goes on with that wait."""
        self._began_ns = time.monotonic_ns() - self.lane_moment_ns
        self._last_ns = _NOT_BRIEF_NS
        if crowded:
            self._sleeps = _SLEEPS_WHEN_CROWDED

    def _look(self, now_ns: int) -> list[tuple[int, int]]:
        poll, give_way, clock_ns = self._poll, os.sched_yield, time.monotonic_ns
        until_ns = now_ns + MOMENT_NS
        while now_ns < until_ns:
            ready = poll(0, _MAX_EVENTS)
            if ready:
                return ready
            give_way()
            before_ns, now_ns = now_ns, clock_ns()
            if now_ns - before_ns > CROWDED_NS:
                self._last_ns, self._sleeps = _NOT_BRIEF_NS, _SLEEPS_WHEN_CROWDED
                break
        return []
