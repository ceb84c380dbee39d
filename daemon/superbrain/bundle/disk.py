"""Writing to the disk so that it stays written, with the operating system's errors translated.

A file that was written and renamed may still be empty after a power cut unless it and its folder
were synchronised; both are done here and nowhere else.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from superbrain.domain.errors import StoreError


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Translate what the operating system says while `path` is written."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StoreError(
            f"{path}: expected to write there, found: {error.strerror or error}",
            reason="STORE_NO_SPACE" if full else "STORE_IO",
            mend="Free some space on that disk" if full else "Check the disk and its permissions",
        ) from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a new read-only file that is on the disk when the block ends.

    Folders above it are made. Nothing is ever written over a file or through a link: StoreError.
    """
    with storing(path):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk.

    Raises:
        StoreError: the disk refuses.
    """
    with storing(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
