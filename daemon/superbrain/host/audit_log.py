"""The audit trail on the disk: append-only files of JSON lines, chained by hashes.

    audit.log              the newest entries (mode 0600)
    audit.0000004711.log   older ones, up to entry 4711; the oldest are let go, which is an entry
    audit.head             number and hash of the newest entry, so that a cut end shows

`write` never raises and never holds up what it reports: an entry that cannot be written waits in
memory and follows when the disk is well again; `trouble` says so meanwhile. When it has returned
without trouble, the entry is on the disk. May be used from any thread.

domain/audit.py has the chain's rules.
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from superbrain.domain.audit import (
    Action,
    Chain,
    Entry,
    Link,
    Peer,
    check_chain,
    check_head,
    encode_entry,
    link_of,
)
from superbrain.host.events import Event
from superbrain.host.logs import event

log = logging.getLogger(__name__)

MAX_BYTES = 4 << 20
KEEP_FILES = 16
MAX_WAITING = 1000
MAX_DETAIL = 2000
_OLDER = re.compile(r"audit\.([0-9]{10})\.log")
_HEAD = re.compile(rb"([0-9]{20}) ([0-9a-f]{64})\n")


class _Draft(msgspec.Struct, frozen=True):
    """An entry whose place in the chain is not known yet."""

    at: dt.datetime
    action: Action
    subject: str
    outcome: str
    detail: str
    peer: Peer | None


class AuditLog:
    """The trail in one folder.

    Args:
        folder: where the files lie; it must be there.
        max_bytes: when to begin another file.
        keep_files: how many older files are kept.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int = MAX_BYTES, keep_files: int = KEEP_FILES
    ) -> None:
        self.path = folder / "audit.log"
        self.faults: list[str] = []
        self.trouble = ""
        self._head_path = folder / "audit.head"
        self._max_bytes = max_bytes
        self._keep_files = keep_files
        self._last = Link()
        self._head = Link()
        self._torn_at: int | None = None
        self._waiting: collections.deque[_Draft] = collections.deque()
        self._lost = 0
        self._lock = threading.Lock()

    def open(self) -> None:
        """Check the newest entries and go on after them; `faults` tells what is not as written.

        A trail that cannot even be read is a fault too, and stops nothing.
        """
        torn, begun = 0, False
        try:
            with self._lock:
                torn = self._cut_torn_line()
                begun = self._find_end()
        except OSError as error:
            self.faults = [f"{self.path} cannot be read: {error.strerror}"]
        if begun:
            self.write(Action.TRAIL_BEGUN, str(self._last.sequence))
        if torn:
            self.write(Action.ENTRIES_LOST, outcome="cut off", detail=f"{torn} bytes of an entry")
        for fault in self.faults:
            self.write(Action.TRAIL_BROKEN, outcome="found", detail=fault)

    def _find_end(self) -> bool:
        """Check the newest file, and find where to go on; whether a new trail begins."""
        head, older = read_head(self._head_path), older_files(self.path.parent)
        before = _end_of(older[-1]) if older else None
        if not older and not self.path.exists():
            lost = f"expected entries 1 to {head.sequence}, found none"
            self.faults = [lost] if head.sequence else []
            self._last = head
            return True
        chain = check_chain(read_lines(self.path), begins_after=before)
        check_head(chain, head)
        self.faults = chain.faults
        self._last = Link(max(head.sequence, chain.last.sequence), chain.last.sha256)
        return False

    def write(
        self,
        action: Action,
        subject: str = "",
        outcome: str = "",
        detail: str = "",
        peer: Peer | None = None,
    ) -> None:
        """Write an entry; what cannot be written now follows with the next one."""
        now = dt.datetime.now(dt.UTC)
        draft = _Draft(now, action, subject, outcome, detail[:MAX_DETAIL], peer)
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._lost += 1
            else:
                self._waiting.append(draft)
            self._flush()
        event(
            log,
            Event.AUDITED,
            message=detail,
            action=action,
            subject=subject,
            outcome=outcome,
            uid=peer.uid if peer else None,
            pid=peer.pid if peer else None,
        )

    def newest(self, limit: int) -> list[Entry]:
        """Read the newest entries, newest first; lines that are no entries are left out.

        Raises:
            OSError: a file cannot be read.
        """
        found: list[Entry] = []
        for path in [self.path, *reversed(older_files(self.path.parent))]:
            for line in reversed(list(read_lines(path))):
                if len(found) == limit:
                    return found
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    found.append(msgspec.json.decode(line, type=Entry))
        return found

    def verify(self) -> Chain:
        """Check the whole trail.

        Raises:
            OSError: a file cannot be read.
        """
        with self._lock:
            return verify_folder(self.path.parent)

    # --- writing ------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Write what waits; stop at the first failure."""
        try:
            while self._waiting:
                self._append(self._waiting[0])
                self._waiting.popleft()
            if self._lost:
                self._append(self._draft(Action.ENTRIES_LOST, f"{self._lost} could not be written"))
                self._lost = 0
            if self._head != self._last:
                _write_head(self._head_path, self._last)
                self._head = self._last
        except OSError as error:
            waiting = len(self._waiting) + self._lost
            what = f"{waiting} entries are not written yet" if waiting else "its head is behind"
            self.trouble = f"{self.path}: {error.strerror}: {what}"
            return
        self.trouble = ""

    def _append(self, draft: _Draft) -> None:
        self._cut_torn_write()
        line = encode_entry(self._entry(draft))
        if self._size() + len(line) >= self._max_bytes:
            self._begin_another_file()
            line = encode_entry(self._entry(draft))
        self._write_line(line)

    def _write_line(self, line: bytes) -> None:
        """Bring a line to the disk; what of it a failure leaves there goes before the next one."""
        before = self._size()
        try:
            _append_line(self.path, line)
        except OSError:
            self._torn_at = before
            with contextlib.suppress(OSError):
                self._cut_torn_write()
            raise
        self._last = link_of(line, self._last.sequence + 1)

    def _cut_torn_write(self) -> None:
        if self._torn_at is not None:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(self.path, self._torn_at)
            self._torn_at = None

    def _entry(self, draft: _Draft) -> Entry:
        return Entry(
            sequence=self._last.sequence + 1,
            at=draft.at,
            action=draft.action,
            previous=self._last.sha256,
            subject=draft.subject,
            outcome=draft.outcome,
            detail=draft.detail,
            peer=draft.peer,
        )

    def _draft(self, action: Action, detail: str, subject: str = "") -> _Draft:
        return _Draft(dt.datetime.now(dt.UTC), action, subject, "", detail, None)

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def _begin_another_file(self) -> None:
        """Put the full file aside; let the oldest go once an entry says that they are."""
        if self._size() == 0:
            return
        full = self.path.with_name(f"audit.{self._last.sequence:010d}.log")
        os.rename(self.path, full)  # noqa: PTH104 - tests take the place of `os` here
        older = older_files(self.path.parent)
        for gone in older[: -self._keep_files]:
            last = _last_number(gone)
            draft = self._draft(Action.TRAIL_SHORTENED, "up to here: too old to keep", str(last))
            self._write_line(encode_entry(self._entry(draft)))
            os.unlink(gone)  # noqa: PTH108

    def _cut_torn_line(self) -> int:
        """Remove half a line that a power cut left; how long it was."""
        with contextlib.suppress(FileNotFoundError):
            data = self.path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.truncate(self.path, whole)
            return len(data) - whole
        return 0


def verify_folder(folder: Path) -> Chain:
    """Check a whole trail, as it lies in a folder.

    Raises:
        OSError: a file cannot be read.
    """
    paths = [*older_files(folder), folder / "audit.log"]
    chain = check_chain(line for path in paths for line in read_lines(path))
    check_head(chain, read_head(folder / "audit.head"))
    return chain


def older_files(folder: Path) -> list[Path]:
    """Give the files before the newest one, oldest first."""
    return sorted(path for path in folder.glob("audit.*.log") if _OLDER.fullmatch(path.name))


def read_lines(path: Path) -> Iterator[bytes]:
    """Give the lines of a file, none if it is not there.

    Raises:
        OSError: it cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def read_head(path: Path) -> Link:
    """Give the newest entry's number and hash; the beginning when nothing usable is there."""
    with contextlib.suppress(OSError):
        found = _HEAD.fullmatch(path.read_bytes())
        if found:
            return Link(int(found[1]), found[2].decode())
    return Link()


def _write_head(path: Path, last: Link) -> None:
    """Not synchronised: after a power cut it may be behind the trail, and never ahead of it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, f"{last.sequence:020d} {last.sha256}\n".encode(), 0)
    finally:
        os.close(descriptor)


def _append_line(path: Path, line: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, line + b"\n") != len(line) + 1:
            raise OSError(28, "No space left on device")
        os.fsync(descriptor)
        if not before:
            _synchronise(path.parent)
    finally:
        os.close(descriptor)


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _end_of(path: Path) -> Link:
    """Give the link to a file's last line."""
    last = b""
    for line in read_lines(path):
        last = line
    return link_of(last, _last_number(path))


def _last_number(path: Path) -> int:
    found = _OLDER.fullmatch(path.name)
    assert found is not None  # noqa: S101 - only such names are listed
    return int(found[1])
