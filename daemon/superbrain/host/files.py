"""Small files that others read while we write them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PART_SUFFIX = ".part"
READABLE_FOLDER = 0o755
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_atomically(
    path: Path, data: bytes, *, mode: int | None = None, durable: bool = False
) -> None:
    """Replace a file in one step: a reader sees the old content or the new, never a part.

    Nothing is written through a link that somebody may have put in the file's place. What a kill
    leaves is one file, `.NAME.part`, which the next write replaces.

    Args:
        path: where.
        data: what.
        mode: who may read it, whatever the umask; None leaves that to the umask.
        durable: return when it is on the disk: the name may outlive a power cut, and the data not.

    Raises:
        OSError: it cannot be written; the old content is still there.
    """
    temporary = path.with_name(f".{path.name}{PART_SUFFIX}")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108 - tests take the place of `os` here
        with os.fdopen(os.open(temporary, _NEW, 0o644), "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
        if durable:
            _fsync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_readable_folder(folder: Path, *, parents: bool = False) -> None:
    """Make a folder that others may list, whatever the umask; one that is there stays as it is.

    Args:
        folder: where.
        parents: whether to make those above it in the same way.

    Raises:
        OSError: it cannot be made.
    """
    for one in (*(reversed(folder.parents) if parents else ()), folder):
        try:
            one.mkdir()
        except FileExistsError:
            if not one.is_dir():
                raise
        else:
            one.chmod(READABLE_FOLDER)
