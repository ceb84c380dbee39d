"""The inbox: which dropped files are complete, which still wait, which are refused and why.

Bundles (`.sbb`) are judged here; trust updates (`.sbt`) are only found and read, one at a time, and
trust_inbox.py has them judged.

A notification from the kernel is only a hint to look now; the periodic look is what counts. A file
is taken when it has exactly the size its own signed manifest says, so a slow copy simply waits.
What happened to a file can be seen where it was dropped: one that was taken disappears once it has
settled, a refused one is renamed to `NAME.sbb.refused`, with the reason in `NAME.sbb.refused.txt`.
Nothing is ever deleted here before its bytes are safe in the store.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from superbrain.bundle.archive import open_bundle
from superbrain.bundle.disk import make_folder, remove, rename
from superbrain.bundle.signing import TRUST_UPDATE
from superbrain.bundle.trust_chain import SUFFIX as UPDATE_SUFFIX
from superbrain.deploy.dropped import Content, Settling, open_dropped
from superbrain.deploy.inbox_notes import MEND, REFUSED_SUFFIX, InboxNotes, Listing
from superbrain.domain.deployment import Reason
from superbrain.domain.errors import ArchiveError, BundleError, Incomplete, TrustUnusable
from superbrain.host.events import Event
from superbrain.host.files import PART_SUFFIX, write_atomically
from superbrain.host.logs import event
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import BinaryIO

    from superbrain.bundle.archive import VerifiedBundle
    from superbrain.domain.trust import Trust

log = logging.getLogger(__name__)

SUFFIX = ".sbb"
_LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


class InboxError(SuperbrainError):
    """The inbox folder itself cannot be used."""


class Complete(msgspec.Struct, frozen=True):
    """A dropped file that is complete, with its verified envelope."""

    path: Path
    content: Content
    verified: VerifiedBundle


class DroppedUpdate(msgspec.Struct, frozen=True):
    """A dropped trust update, neither read nor judged; `changed_ns` is when it came or changed."""

    path: Path
    content: Content
    changed_ns: int


class Inbox:
    """Looks through one folder. `on_refused` is told of every file that is put aside.

    Args:
        path: the folder.
        settle_s: how long a file must not have changed before its content may be held against it.
        clock: seconds that only go forward, by which that is judged.
    """

    def __init__(
        self, path: Path, settle_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._settling = Settling(settle_s, clock)
        self._notes = InboxNotes(path, clock)
        self._leaving: dict[str, Content] = {}
        self._lock = threading.Lock()  # a scan runs in a thread of its own
        self.on_refused: Callable[[str, Reason], None] = lambda _name, _reason: None

    def check_usable(self) -> None:
        """Make sure the folder can be read and written; clear away notes that were cut short.

        Raises:
            InboxError: it cannot, and what to do.
        """
        mend = f"Create it and give it to the user that runs superbraind (install -d {self.path})"
        try:
            make_folder(self.path)
        except OSError as error:
            msg = f"the inbox {self.path} cannot be created: {error.strerror}"
            raise InboxError(msg, mend=mend) from error
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            msg = f"the inbox {self.path} is expected to be readable and writable, and it is not"
            raise InboxError(msg, mend=mend)
        for part in self.path.glob(f".*{REFUSED_SUFFIX}.txt{PART_SUFFIX}"):
            with contextlib.suppress(OSError):
                remove(part)

    def listing(self) -> Listing:
        """List what lies in the inbox and is not taken; what was put aside stays listed."""
        return self._notes.listing()

    def scan(self, trust: Trust) -> list[Complete]:
        """Look at every file once; give the complete ones, higher sequences first.

        Raises:
            InboxError: the folder cannot be read.
        """
        try:
            names = dict.fromkeys(sorted(entry.name for entry in os.scandir(self.path)))
        except OSError as error:
            msg = f"the inbox {self.path} cannot be read: {error.strerror}"
            raise InboxError(msg, mend="Check that it exists and its permissions") from error
        with self._lock:
            self._leaving = {name: left for name, left in self._leaving.items() if name in names}
        self._notes.forget_all_but(names)
        self._settling.forget_all_but(names)
        found = (self._look(name, trust) for name in names if not _is_ours(name))
        complete = _sharing(item for item in found if item is not None)
        self._notes.read_aside(name for name in names if name.endswith(REFUSED_SUFFIX))
        return sorted(complete, key=lambda item: -item.verified.manifest.sequence)

    def updates(self) -> list[DroppedUpdate]:
        """Find every trust update that was not judged for good yet, those that came first first.

        Raises:
            InboxError: the folder cannot be read.
        """
        try:
            names = sorted(entry.name for entry in os.scandir(self.path))
        except OSError as error:
            msg = f"the inbox {self.path} cannot be read: {error.strerror}"
            raise InboxError(msg, mend="Check that it exists and its permissions") from error
        wanted = [name for name in names if name.endswith(UPDATE_SUFFIX) and not _is_ours(name)]
        found = [self._find_update(name) for name in wanted]
        there = (update for update in found if update is not None)
        return sorted(there, key=lambda update: update.changed_ns)

    def _find_update(self, name: str) -> DroppedUpdate | None:
        path = self.path / name
        if not _is_text(name) or name in self._leaving or self._notes.judged_before(name):
            return None
        with contextlib.suppress(OSError):
            status = path.lstat()
            return DroppedUpdate(path, Content.of(status), status.st_ctime_ns)
        return None

    def read_update(self, update: DroppedUpdate) -> bytes | None:
        """Read a trust update; None when it cannot be read, or is not the one that was found."""
        try:
            with self.open(update.path) as file:
                same = Content.of(os.fstat(file.fileno())) == update.content
                return file.read(TRUST_UPDATE.max_envelope_bytes + 1) if same else None
        except ArchiveError as error:
            mend = "Copy the trust update itself"
            self.refuse(update.path, Reason(error.reason, error.message, mend))
        except OSError as error:
            self.wait(update.path.name, f"it cannot be read yet: {error.strerror}")
        return None

    def open(self, path: Path) -> BinaryIO:
        """Open a dropped file for reading; a symlink, a pipe or a device is refused.

        Raises:
            ArchiveError: it is no regular file.
            OSError: it is gone or cannot be read.
        """
        return open_dropped(path)

    def holds(self, source: str) -> bool:
        """Tell whether a dropped file is still there."""
        return bool(source) and Path(source).exists()

    def arrived_at(self, path: Path) -> dt.datetime:
        """Tell when a file was last written, renamed or copied here; a copy cannot set it back.

        What came while the clock was ahead, and the clock was set right since, came long ago.
        """
        now = _now()
        try:
            arrived = dt.datetime.fromtimestamp(path.lstat().st_ctime, dt.UTC)
        except OSError:
            return now
        return arrived if arrived <= now else _LONG_AGO

    def settled(self, path: Path, read: Content | None = None) -> bool:
        """Tell whether the file has been left alone long enough to be judged by its content.

        With `read`, also whether that content is still the one it has. What is gone has settled.
        """
        with contextlib.suppress(OSError):
            content = Content.of(path.lstat())
            return self._settling.meet(path.name, content) and read in (None, content)
        return True

    def taken(self, path: Path, content: Content) -> None:
        """Remove a file whose bytes are in the store, once it has settled.

        Not at once, for the program that copied it may still want to set its mode or time. What
        is not `content` any more is another drop, and is looked at anew.
        """
        with self._lock:
            self._leaving[path.name] = content
        self._notes.forget(path.name)
        self._let_go(path)

    def _let_go(self, path: Path) -> bool:
        """Remove a taken file if it has settled; false when it is not the one that was taken."""
        try:
            same = Content.of(path.lstat()) == self._leaving.get(path.name)
            if same and self.settled(path):
                remove(path)
        except OSError:
            return True  # gone already, or tried again at the next scan
        if not same:
            with self._lock:
                self._leaving.pop(path.name, None)
        return same

    def refuse(self, path: Path, reason: Reason) -> None:
        """Put a file aside, with the reason next to it."""
        event(
            log,
            Event.BUNDLE_REFUSED,
            logging.WARNING,
            reason.message,
            file=path.name,
            code=reason.code,
        )
        try:
            self.explain(path.name, reason)
            rename(path, self.path / (path.name + REFUSED_SUFFIX))
            self._notes.forget(path.name)
            self.on_refused(path.name, reason)
        except OSError as error:
            detail = f"{reason.message} (and it cannot be put aside: {error.strerror})"
            self._notes.note(path.name, "refused", detail, reason.mend)

    def explain(self, name: str, reason: Reason) -> None:
        """Write `NAME.refused.txt` for a person who looks into the inbox."""
        text = f"{name} was refused ({reason.code}).\n\n{reason.message}\n"
        if reason.mend:
            text += f"\n{MEND}{reason.mend}\n"
        note = self.path / f"{name}{REFUSED_SUFFIX}.txt"
        write_atomically(note, text.encode("utf-8", "backslashreplace"))

    def _look(self, name: str, trust: Trust) -> Complete | None:
        path = self.path / name
        if name in self._leaving and self._let_go(path):
            return None
        try:
            status = path.lstat()
        except OSError:
            return None
        self._settling.meet(name, Content.of(status))
        if self._notes.judged_before(name) or name.endswith(UPDATE_SUFFIX):
            return None
        if not _is_text(name):
            self._notes.note(
                name, "ignored", "expected a name in UTF-8, found other bytes", "Rename it"
            )
            return None
        if not name.endswith(SUFFIX) or stat.S_ISDIR(status.st_mode):
            message = f"expected a bundle named *{SUFFIX}, found another file"
            self._notes.note(name, "ignored", message)
            return None
        if not stat.S_ISREG(status.st_mode):
            message = f"{name}: expected a regular file, found a link, pipe or device"
            self.refuse(path, Reason("FILE_NOT_REGULAR", message, "Copy the bundle itself"))
            return None
        return self._judge(path, trust)

    def _judge(self, path: Path, trust: Trust) -> Complete | None:
        try:
            with self.open(path) as file:
                content = Content.of(os.fstat(file.fileno()))
                verified = open_bundle(file, trust)
        except Incomplete as short:
            self._notes.copying(path.name, short.have_bytes, short.need_bytes)
        except TrustUnusable as error:  # the host is at fault: the bundle is judged when it is well
            self.wait(path.name, f"it cannot be judged: {error.message}", error.mend)
        except BundleError as error:
            if self.settled(path):
                self.refuse(path, Reason(error.reason, error.message, error.mend))
            else:
                with contextlib.suppress(OSError):
                    self._notes.copying(path.name, path.lstat().st_size, 0)
        except OSError as error:
            mend = f"chmod g+r {path}" if isinstance(error, PermissionError) else ""
            self.wait(path.name, f"it cannot be read yet: {error.strerror}", mend)
        else:
            if content.size_bytes >= verified.total_bytes:
                self._notes.copied(path.name)
                return Complete(path, content, verified)
            self._notes.copying(path.name, content.size_bytes, verified.total_bytes)
        return None

    def wait(self, name: str, message: str, mend: str = "") -> None:
        """Note why a file is left where it is."""
        self._notes.wait(name, message, mend)


def _sharing(found: Iterable[Complete]) -> list[Complete]:
    """Have files of one bundle share its manifest: links to one file take no disk."""
    known: dict[str, VerifiedBundle] = {}
    return [
        msgspec.structs.replace(one, verified=known.setdefault(one.verified.digest, one.verified))
        for one in found
    ]


def _is_text(name: str) -> bool:
    """Whether a file name is UTF-8."""
    return not any(0xDC80 <= ord(one) <= 0xDCFF for one in name)


def _is_ours(name: str) -> bool:
    return name.startswith(".") or name.endswith((REFUSED_SUFFIX, f"{REFUSED_SUFFIX}.txt"))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
