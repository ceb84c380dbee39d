"""The engine cache: what builders have made, by the key that says what it is.

    engines/KEY/engine       the engine as the runtime wrote it
    engines/KEY/record.json  what it is, its size and sha256, where and in how long it was built
    engines/.staging         what is being written

What builders have measured (timing caches) is kept in the same way, under a key of its own. An
entry comes into being by one rename, with everything synchronised, so there is no half of one.
Every byte is hashed when it is looked up: what is truncated, changed or foreign is removed and
built again. When all of it takes more than its limit, the entries that were used longest ago go;
those in use never do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from superbrain.bundle.disk import (
    fsync_folder,
    make_folder,
    new_file,
    remove,
    remove_tree,
    rename,
    storing,
)
from superbrain.domain.engine import EngineRecord
from superbrain.domain.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from superbrain.domain.engine import EngineHost, EngineKey

ENGINE: Final = "engine"
RECORD: Final = "record.json"
MOST_RECORD_BYTES: Final = 1 << 20
RECENT_S: Final = 900.0
_STAGING: Final = ".staging"
_CHUNK_BYTES: Final = 1 << 20
_KEY: Final = re.compile(r"[0-9a-f]{64}")


class EngineCache:
    """The engines of this host. Only one process may write to it."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        with storing(root):
            make_folder(root / _STAGING)
            self._sweep()

    def path(self, key: EngineKey) -> Path:
        """Give the file of an engine, whether or not it is there."""
        return self._root / key.digest / ENGINE

    def look_up(self, key: EngineKey) -> EngineRecord | None:
        """Give the record of an engine whose every byte is as it was written; None for none.

        What is damaged is removed: ask `holds` beforehand to tell it from what was never there.

        Raises:
            StoreError: something damaged cannot be removed.
        """
        folder = self._root / key.digest
        record = read_record(folder)
        if record is None or record.key != key or not is_intact(folder / ENGINE, record):
            self.discard(key)
            return None
        with contextlib.suppress(OSError):
            os.utime(folder)  # it was used last of all
        return record

    def holds(self, key: EngineKey) -> bool:
        """Tell whether there is something under this key, good or damaged."""
        return (self._root / key.digest).exists()

    def put(self, key: EngineKey, built: Path, host: EngineHost, seconds: float) -> EngineRecord:
        """Copy a built engine into the cache.

        Raises:
            StoreError: it cannot be read, or there is no room for it.
        """
        staged = self._root / _STAGING / f"{key.digest}-{secrets.token_hex(4)}"
        try:
            size, sha256 = copy_hashed(built, staged / ENGINE)
            record = EngineRecord(key, size, sha256, host, seconds)
            with new_file(staged / RECORD) as file:
                file.write(msgspec.json.encode(record))
            self.discard(key)
            with storing(staged):
                rename(staged, self._root / key.digest)
            fsync_folder(self._root)
        finally:
            _remove_if_there(staged)
        return record

    def discard(self, key: EngineKey) -> None:
        """Remove an engine; it is gone at once even if deleting its files is cut short.

        Raises:
            StoreError: it cannot be removed.
        """
        self._remove(self._root / key.digest)

    def discard_file(self, path: Path) -> bool:
        """Remove the engine whose file this is; False for one from elsewhere, which is left alone.

        Raises:
            StoreError: it cannot be removed.
        """
        if path.parent.parent != self._root:
            return False
        self._remove(path.parent)
        return True

    def trim(self, in_use: Container[str], now: float) -> list[str]:
        """Remove what was used longest ago until the rest keeps the limit; give the keys that went.

        Args:
            in_use: paths of engines that must stay.
            now: seconds since 1970; what was used a moment ago is about to be loaded, and stays.

        Raises:
            StoreError: one of them cannot be removed.
        """
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        gone = []
        for used_at, size, folder in sorted(entries):
            if total <= self._limit_bytes:
                break
            if now - used_at > RECENT_S and str(folder / ENGINE) not in in_use:
                self._remove(folder)
                total -= size
                gone.append(folder.name)
        return gone

    def _sweep(self) -> None:
        """Remove what interrupted writing left behind; what cannot be goes at the next start."""
        for path in (self._root / _STAGING).iterdir():
            with contextlib.suppress(StoreError):
                _remove_if_there(path)

    def _entries(self) -> list[tuple[float, int, Path]]:
        """When each entry was used last, its size, and its folder."""
        found = []
        with storing(self._root):
            for folder in self._root.iterdir():
                if _KEY.fullmatch(folder.name) and folder.is_dir():
                    sizes = (path.lstat().st_size for path in folder.iterdir())
                    found.append((folder.stat().st_mtime, sum(sizes), folder))
        return found

    def _remove(self, folder: Path) -> None:
        doomed = self._root / _STAGING / f"{folder.name}-{secrets.token_hex(4)}-removed"
        with storing(folder):
            try:
                rename(folder, doomed)
            except FileNotFoundError:
                return
            _remove_if_there(doomed)


def read_record(folder: Path) -> EngineRecord | None:
    """Read what an entry says it is; None where that cannot be read."""
    try:
        with (folder / RECORD).open("rb") as file:
            return msgspec.json.decode(file.read(MOST_RECORD_BYTES), type=EngineRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def is_intact(path: Path, record: EngineRecord) -> bool:
    """Tell whether a file is, byte for byte, what its record says."""
    try:
        with _opened(path) as file:
            if os.fstat(file.fileno()).st_size != record.size_bytes:
                return False
            sha256 = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                sha256.update(chunk)
            return sha256.hexdigest() == record.sha256
    except OSError:
        return False


def copy_hashed(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file that its writer may still change; size and sha256 of what was copied."""
    size, sha256 = 0, hashlib.sha256()
    with storing(source), _opened(source) as file, new_file(target) as copy:
        while chunk := file.read(_CHUNK_BYTES):
            copy.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return size, sha256.hexdigest()


def _opened(path: Path) -> BinaryIO:
    """Open a file to read, never through a link and without waiting for a FIFO."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no file")
    return os.fdopen(fd, "rb")


def _remove_if_there(path: Path) -> None:
    with storing(path), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            remove(path)
