"""Writing to the disk so that it stays written, with the operating system's errors translated.

Everything that changes what lies in store and inbox goes through here, and the small files that
others read through `host.files`; so tests can have each of these operations fail, or the process
killed before it. A file that was written and renamed may still be empty after a power cut unless
it and its folder were synchronised; both are done here, and in `host.files` for what must last.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import BinaryIO, Final

from superbrain.domain.errors import StoreError

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Translate what the operating system says while `path` is written."""
    try:
        yield
    except OSError as error:
        message, mend = not_written(path, error)
        reason = "STORE_NO_SPACE" if error.errno in FULL else "STORE_IO"
        raise StoreError(message, reason=reason, mend=mend) from error


def not_written(place: object, error: OSError) -> tuple[str, str]:
    """Say that `place` cannot be written, and what to do."""
    found = f"{place}: expected to write there, found: {error.strerror or error}"
    full = error.errno in FULL
    return found, "Free some space on that disk" if full else "Check the disk and its permissions"


def make_folder(path: Path) -> None:
    """Make a folder and those above it; one that is there already is left as it is.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(path, mode=0o755, exist_ok=True)  # noqa: PTH103 - tests take the place of `os` here


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name.

    Raises:
        OSError: it cannot; nothing has changed.
    """
    os.rename(source, target)  # noqa: PTH104


def remove(path: Path) -> None:
    """Remove a file or link.

    Raises:
        OSError: it cannot be removed.
    """
    os.unlink(path)  # noqa: PTH108


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, and never what a link in it leads to.

    Raises:
        OSError: it cannot be removed, or only a part of it.
    """
    for parent, folders, files in os.walk(folder, topdown=False, onerror=_let_out):
        inside = Path(parent)
        for path in (*(inside / name for name in files), *(inside / name for name in folders)):
            if path.is_dir() and not path.is_symlink():
                os.rmdir(path)  # noqa: PTH106
            else:
                remove(path)
    os.rmdir(folder)  # noqa: PTH106


def _let_out(error: OSError) -> None:
    raise error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a new read-only file that is on the disk when the block ends.

    Folders above it are made. Nothing is ever written over a file or through a link: StoreError.
    """
    with storing(path):
        make_folder(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Make a file that was not there, whole or not at all; never through a link.

    Raises:
        FileExistsError: something is there already.
        OSError: it cannot be written; nothing is left of it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(path)
        raise


@contextlib.contextmanager
def whole_or_nothing(folder: Path) -> Iterator[None]:
    """Fill a folder: what stops it takes along what it has made in it, and the folder if it did.

    Raises:
        StoreError: something cannot be written.
    """
    before = {*folder.rglob("*")} if folder.exists() else None
    try:
        with storing(folder):
            yield
    except BaseException:
        with contextlib.suppress(OSError):
            if before is None:
                remove_tree(folder)
            else:
                _keep_only(folder, before)
        raise


def _keep_only(folder: Path, kept: AbstractSet[Path]) -> None:
    for path in sorted({*folder.rglob("*")} - kept, reverse=True):  # what is inside comes first
        if path.is_dir() and not path.is_symlink():
            os.rmdir(path)  # noqa: PTH106
        else:
            remove(path)


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
