"""Asks the driver of the GPUs at an interval, from a thread that may be lost.

A driver whose device has gone may not answer at all, and nothing ends a thread that waits in it.
So every question has a thread of its own, at most one is open at a time, and whoever wants to know
gets what was said last and for how long nothing was said since. Where the answer was that there is
no GPU, only who waits for one has it asked again at once.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from superbrain.host.gpu import Gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.domain.health import GpuFacts


NONE_AGAIN_S: Final = 30.0


class GpuWatch:
    """What the GPUs of this host said last.

    Attributes:
        facts: of every GPU; empty where there is none, or before the first answer.

    Args:
        read: asks the driver; for tests.
    """

    def __init__(self, read: Callable[[], list[GpuFacts]] | None = None) -> None:
        self.facts: list[GpuFacts] = []
        self._read = read or Gpus().read
        self._asking: threading.Thread | None = None
        self._asked_at = 0.0
        self._none = False

    @property
    def silent_s(self) -> float:
        """For how long an open question has not been answered; 0.0 when none is open."""
        asking = self._asking
        waits = asking is not None and asking.is_alive()
        return time.monotonic() - self._asked_at if waits else 0.0

    def look(self, wait_s: float = 0.0) -> None:
        """Ask, unless a question is open, and wait for the answer at most so long.

        Without waiting, a host without GPUs is asked twice a minute: a driver may be loaded later.
        """
        now = time.monotonic()
        if self._none and not wait_s and now - self._asked_at < NONE_AGAIN_S:
            return
        if self._asking is None or not self._asking.is_alive():
            self._asked_at = now
            # A daemon thread: it must not keep the process from ending.
            self._asking = threading.Thread(target=self._ask, name="gpus", daemon=True)
            self._asking.start()
        if wait_s:
            self._asking.join(wait_s)

    def _ask(self) -> None:
        self.facts = self._read()
        self._none = not self.facts
