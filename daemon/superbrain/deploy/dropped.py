"""A dropped file: how it is opened, which content it has, and since when it has been left alone.

Files bring their times along. `cp -p` and `rsync -t` set them to those of another host, and what
was written while the clock was ahead lies in the future until the clock has caught up. So nothing
is concluded from a file's times, except that it was written to when they have changed: a content
has settled when it was met, by a clock that nobody can set, long enough ago and ever since.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path
    from typing import BinaryIO

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Content(msgspec.Struct, frozen=True):
    """What tells one content of a file from another without reading it: whose bytes these are."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Content:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def open_dropped(path: Path) -> BinaryIO:
    """Open a dropped file for reading; a symlink, a pipe or a device is refused.

    Raises:
        ArchiveError: it is no regular file.
        OSError: it is gone or cannot be read.
    """
    descriptor = os.open(path, _READ_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        msg = f"{path.name}: expected a regular file, found something else"
        raise ArchiveError(msg, reason="FILE_NOT_REGULAR", mend="Copy the bundle itself")
    return os.fdopen(descriptor, "rb")


class Settling:
    """Knows since when each file has had the content it has. May be used from any thread.

    Args:
        settle_s: how long a content must have been there to have settled.
        clock: seconds that only go forward, whatever happens to the time of day.
    """

    def __init__(self, settle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._settle_s = settle_s
        self._clock = clock
        self._met: dict[str, tuple[Content, float]] = {}
        self._lock = threading.Lock()

    def meet(self, name: str, content: Content) -> bool:
        """Note which content a file has now, and tell whether it has settled."""
        now = self._clock()
        with self._lock:
            met, since = self._met.get(name, (None, now))
            if met != content:
                self._met[name], since = (content, now), now
        return now - since >= self._settle_s

    def forget_all_but(self, names: Container[str]) -> None:
        """Forget the files that are gone."""
        with self._lock:
            self._met = {name: met for name, met in self._met.items() if name in names}
