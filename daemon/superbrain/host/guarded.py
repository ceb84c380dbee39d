"""Files whose writers decide who may do what: read only when nobody else can have written them.

A file or folder is guarded when it belongs to root or to the user that reads it and nobody else may
write it; a secret one when nobody else may read it either.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from superbrain.wire.errors import SuperbrainError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
# systemd lets the service's user read a credential by an ACL, which shows as the group's bit.
_OTHERS_OF_A_CREDENTIAL: Final = _OTHERS & ~stat.S_IRGRP


class NotGuarded(SuperbrainError):
    """A file or folder is missing, of another kind, or open to others."""


def read_guarded(path: Path, limit: int, *, secret: bool = False) -> bytes:
    """Read a small file that nobody else can have written or, if `secret`, read.

    Raises:
        NotGuarded: it cannot be read, is a link or no file, too long, or open to others.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise NotGuarded(
                f"{path}: expected a regular file of at most {limit} bytes, found something else"
            )
        _check(path, found, _forbidden(path) if secret else _OTHERS_WRITE)
        return os.read(fd, limit)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)


def guarded_files(folder: Path, pattern: str) -> list[Path]:
    """List the files of a guarded folder by name, hidden ones left out.

    Raises:
        NotGuarded: the folder is missing, none, or open to others.
    """
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotGuarded(f"{folder}: expected a folder, found something else")
        _check(folder, found, _OTHERS_WRITE)
        names = sorted(path for path in folder.iterdir() if path.match(pattern))
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [path for path in names if not path.name.startswith(".")]


def _forbidden(path: Path) -> int:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    inside = credentials is not None and path.is_relative_to(credentials)
    return _OTHERS_OF_A_CREDENTIAL if inside else _OTHERS


def _check(path: Path, found: os.stat_result, forbidden: int) -> None:
    if found.st_uid not in {0, os.geteuid()}:
        raise NotGuarded(
            f"{path}: expected it to belong to root or to user id {os.geteuid()}, "
            f"found owner {found.st_uid}",
            mend=f"Check the content, then: chown root {path}",
        )
    if found.st_mode & forbidden:
        bits = "go-rwx" if forbidden & stat.S_IROTH else "go-w"
        what = "readable and writable" if bits == "go-rwx" else "writable"
        raise NotGuarded(
            f"{path}: expected it to be {what} for its owner only, "
            f"found mode {stat.S_IMODE(found.st_mode):04o}",
            mend=f"Check the content, then: chmod {bits} {path}",
        )


def _unreadable(path: Path, error: OSError) -> NotGuarded:
    mend = "Let the service's user read it" if isinstance(error, PermissionError) else ""
    return NotGuarded(f"{path}: expected to read it, found: {error.strerror}", mend=mend)
