"""The lock on a state folder: one daemon, or one restore, at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from superbrain.wire.errors import SuperbrainError

LOCK_NAME = "daemon.lock"


class StateInUse(SuperbrainError):
    """Somebody else works in the state folder."""


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock for as long as the block runs.

    Root leaves a lock file that the folder's owner can use.

    Raises:
        StateInUse: another process holds it.
        OSError: it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(folder / LOCK_NAME, flags, 0o640), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            msg = f"another superbraind already uses {folder}"
            mend = "Stop it first, or give this one a state folder of its own"
            raise StateInUse(msg, mend=mend) from error
        if os.geteuid() == 0:
            owner = folder.stat()
            os.fchown(lock.fileno(), owner.st_uid, owner.st_gid)
        yield
