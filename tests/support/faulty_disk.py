"""A disk that fails, and a process that is killed, at exactly the operation one asks for.

The modules of `PORTS` do all writing; this takes the place of their `os`, and of SQLite's
connection, and counts what they do. At the operation with the wanted number it strikes:

    ENOSPC EIO EDQUOT   the operation fails with that error
    short               half of the data is written, the next call fails for want of space
    kill                SIGKILL, before the operation; of a write, after half of it

>>> with failing() as operations:
...     store = Store(folder)
...     operations.arm(Fault("EIO", 3))
...     store.receive(file, verified)     # raises; `operations.done` names what was done
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from superbrain.bundle import disk, trust_chain
from superbrain.host import audit_log, files

PORTS = (disk, files, audit_log, trust_chain)
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "short")
KILL = "kill"
_SHORT = "short"
_PATH_FIRST = ("makedirs", "unlink", "rmdir", "truncate")
_CHANGES = ("INSERT", "UPDATE", "DELETE")


class Fault(NamedTuple):
    """What strikes, and at which operation; with `lasting` at every one from there on."""

    kind: str
    number: int
    lasting: bool = False


class Operations:
    """Counts operations from `arm` on, and strikes; `done` names them all.

    Args:
        counts: whether an operation on this path is one to count.
    """

    def __init__(self, counts: Callable[[str], bool] = bool) -> None:
        self.done: list[str] = []
        self._fault: Fault | None = None
        self.counts = counts
        self._lock = threading.Lock()

    def arm(self, fault: Fault | None) -> None:
        """Count from the beginning, and strike where `fault` says."""
        with self._lock:
            self.done.clear()
            self._fault = fault

    def disarm(self) -> None:
        """Strike no more."""
        self._fault = None

    def due(self, name: str, path: str) -> str:
        """Count an operation; what strikes it, empty for nothing."""
        if not self.counts(path):
            return ""
        with self._lock:
            self.done.append(name)
            fault, number = self._fault, len(self.done)
        if fault is None or number < fault.number or (number > fault.number and not fault.lasting):
            return ""
        return fault.kind

    def fail(self, name: str, path: str) -> None:
        """Count an operation, and let it fail if it is to."""
        if kind := self.due(name, path):
            raise _error(kind, path)


def _error(kind: str, path: str) -> OSError:
    if kind == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    number = errno.ENOSPC if kind == _SHORT else getattr(errno, kind)
    return OSError(number, os.strerror(number), path)


class FaultyOs:
    """Stands in for `os` in the modules that write."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever `os` has
        real = getattr(os, name)
        if name in _PATH_FIRST:
            return self._failing(name, real)
        return real

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **named: Any) -> Any:  # noqa: ANN401
            self._operations.fail(name, str(path))
            return real(path, *rest, **named)

        return call

    def rename(self, source: Path, target: Path) -> None:
        self._operations.fail("rename", str(source))
        os.rename(source, target)  # noqa: PTH104 - what is counted, as it is

    def replace(self, source: Path, target: Path) -> None:
        self._operations.fail("replace", str(source))
        os.replace(source, target)  # noqa: PTH105

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            self._operations.fail("create", str(path))
        return os.open(path, flags, mode)

    def fdopen(self, fd: int, mode: str) -> io.BufferedWriter:
        assert mode == "wb"
        return io.BufferedWriter(_FaultyFile(fd, self._operations))

    def fchmod(self, fd: int, mode: int) -> None:
        self._operations.fail("fchmod", _path_of(fd))
        os.fchmod(fd, mode)

    def write(self, fd: int, data: bytes) -> int:
        kind = self._operations.due("write", _path_of(fd))
        if kind in (_SHORT, KILL):
            written = os.write(fd, data[: len(data) // 2])
            if kind == KILL:
                raise _error(KILL, _path_of(fd))
            return written
        if kind:
            raise _error(kind, _path_of(fd))
        return os.write(fd, data)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        self._operations.fail("pwrite", _path_of(fd))
        return os.pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        self._operations.fail("fsync", _path_of(fd))
        os.fsync(fd)


class _FaultyFile(io.FileIO):
    """A file whose writes may fail, or write only a half."""

    def __init__(self, fd: int, operations: Operations) -> None:
        super().__init__(fd, "wb")
        self._operations = operations
        self._full = False

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        path = _path_of(self.fileno())
        if self._full:
            raise _error(_SHORT, path)
        kind = self._operations.due("write", path)
        if kind in (_SHORT, KILL):
            self._full = True
            written = super().write(bytes(data)[: len(data) // 2])
            if kind == KILL:
                raise _error(KILL, path)
            return written
        if kind:
            raise _error(kind, path)
        return super().write(data)


def _path_of(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def connecting(operations: Operations) -> Callable[..., sqlite3.Connection]:
    """Give a `sqlite3.connect` whose connections fail as SQLite does on such a disk."""
    connect = sqlite3.connect

    class Faulty(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
            if sql.startswith((*_CHANGES, "COMMIT")):
                self._strike(sql.partition(" ")[0].lower())
            return super().execute(sql, *arguments)

        def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
            self._strike(sql.partition(" ")[0].lower())
            return super().executemany(sql, *arguments)

        def _strike(self, name: str) -> None:
            kind = operations.due(name, "journal")
            if kind == KILL:
                raise _error(KILL, "journal")
            if kind:
                full = kind in ("ENOSPC", "EDQUOT", _SHORT)
                words = "database or disk is full" if full else "disk I/O error"
                raise sqlite3.OperationalError(words)

    def connect_faulty(*arguments: Any, **named: Any) -> sqlite3.Connection:  # noqa: ANN401
        return connect(*arguments, factory=Faulty, **named)

    return connect_faulty


@contextlib.contextmanager
def failing() -> Iterator[Operations]:
    """Have everything written inside the block counted, to fail as it is armed."""
    operations = Operations()
    with in_place(operations):
        yield operations
    operations.disarm()  # connections of SQLite outlive the block


@contextlib.contextmanager
def in_place(operations: Operations) -> Iterator[None]:
    """Have everything written through `operations`."""
    faulty, connect = FaultyOs(operations), sqlite3.connect
    sqlite3.connect = connecting(operations)  # type: ignore[assignment]
    for module in PORTS:
        setattr(module, "os", faulty)  # noqa: B010 - a module is no class of ours
    try:
        yield
    finally:
        sqlite3.connect = connect
        for module in PORTS:
            setattr(module, "os", os)  # noqa: B010


def killed_at(number: int, begin: Callable[[], object], act: Callable[[], object]) -> bool:
    """Begin, then act in a process that is killed at operation `number`; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            with failing() as operations:
                begin()
                operations.arm(Fault(KILL, number))
                act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
