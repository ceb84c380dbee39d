"""A file descriptor with one owner, which is closed once: when its owner says so or is gone."""

from __future__ import annotations

import os
import weakref


class Descriptor:
    """Owns `fd`, whose number is somebody else's as soon as it is closed.

    Who leaves the process does not close it by this, and a fork closes its own copy.
    """

    __slots__ = ("__weakref__", "_close", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._close = weakref.finalize(self, os.close, fd)
        self._close.atexit = False

    def close(self) -> None:
        """Close it unless it is."""
        self.fd = -1
        self._close()
