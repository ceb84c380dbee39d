"""The rounds: one thread of the daemon that looks at every worker ten times a second.

A thread, because at rest a timer of the loop costs more than the look itself, and because what
holds the loop up then holds up no look. It decides nothing: whom it looks at tells the loop what
was found.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

LOOK_S: Final = 0.1


class Watched(Protocol):
    """Somebody who is looked at."""

    def look(self) -> None:
        """Look; this is called in the thread of the rounds."""


class Rounds:
    """Goes round as long as there is anybody to look at.

    Args:
        pause: waits between two rounds; for tests.
    """

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause
        self._lock = threading.Lock()
        self._watched: tuple[Watched, ...] = ()
        self._walking = False

    def begin(self, watched: Watched) -> None:
        """Look at somebody from now on.

        Raises:
            RuntimeError: no thread can be started; nobody new is looked at.
        """
        with self._lock:
            if not self._walking:
                # A daemon thread: it must not keep the process from ending.
                threading.Thread(target=self._walk, name="rounds", daemon=True).start()
                self._walking = True
            self._watched = (*self._watched, watched)

    def end(self, watched: Watched) -> None:
        """Look no more; a round that is under way may still do it once."""
        with self._lock:
            self._watched = tuple(one for one in self._watched if one is not watched)

    def _walk(self) -> None:
        while self._anybody():
            self._pause(LOOK_S)
            for watched in self._watched:
                self._look(watched)

    def _anybody(self) -> bool:
        with self._lock:
            self._walking = bool(self._watched)
            return self._walking

    def _look(self, watched: Watched) -> None:
        try:
            watched.look()
        except Exception as error:  # noqa: BLE001 - it must not end the look at all others
            event(log, Event.TASK_FAILED, logging.ERROR, str(error), exc_info=error)
