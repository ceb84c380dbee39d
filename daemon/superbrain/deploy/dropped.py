"""A dropped file: how it is opened, and what tells its contents apart."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.errors import ArchiveError

if TYPE_CHECKING:
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
