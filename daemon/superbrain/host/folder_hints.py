"""Hints that something in a folder has changed: what looks every few seconds can look at once.

Nothing depends on them. Without notifications, such as on a network file system or when the host
has no inotify watches left, the periodic look still finds everything.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


class _Hint(FileSystemEventHandler):
    """Wakes the loop on any change in the inbox."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rescan: asyncio.Event) -> None:
        self._loop = loop
        self._rescan = rescan

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("created", "modified", "moved", "closed"):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._rescan.set)


@contextlib.contextmanager
def folder_hints(
    path: Path, loop: asyncio.AbstractEventLoop, rescan: asyncio.Event
) -> Iterator[None]:
    """Set `rescan` whenever something in a folder changes, where the kernel tells."""
    watch = Observer()
    try:
        watch.schedule(_Hint(loop, rescan), str(path))
        watch.start()
    except OSError as error:  # no inotify instances or watches left: the periodic look finds all
        log.warning("inbox: no notifications (%s); looking every few seconds instead", error)
        yield
        return
    try:
        yield
    finally:
        watch.stop()
        watch.join()
