"""What is said of the files that lie in the inbox: which wait, which were refused, and why.

Of a file that was put aside the note beside it tells. Anybody who may drop files may write such
notes, and as many files as the disk takes: of each outcome the newest `MAX_LISTED` are listed and
the rest is counted, a text is one line of at most `MAX_TEXT` characters, and what is not printable
in it is spelled out.
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import heapq
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from superbrain.deploy.dropped import Content, open_dropped
from superbrain.domain.errors import ArchiveError
from superbrain.domain.health import InboxFile

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_LISTED = 50
MAX_TEXT = 500
STALLED_AFTER_S = 120.0
REFUSED_SUFFIX = ".refused"
MEND = "What to do: "
_UNFINISHED = ("waiting", "stalled")
_FINAL = ("ignored", "refused")
_MAX_NOTE_BYTES = 1 << 13

Outcome = Literal["waiting", "stalled", "refused", "ignored"]


class Listing(NamedTuple):
    """The files that are listed, and how many more there are of an outcome."""

    files: list[InboxFile]
    more: dict[str, int]


class _Note(NamedTuple):
    content: Content
    file: InboxFile
    since_s: float


class InboxNotes:
    """Keeps what is said of each file. May be used from any thread.

    Args:
        folder: the inbox.
        clock: seconds that only go forward, for how long a copy has not grown.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._notes: dict[str, _Note] = {}
        self._aside = Listing([], {})
        self._lock = threading.Lock()  # a scan runs in a thread of its own

    def listing(self) -> Listing:
        """List what lies in the inbox and is not taken, by name; what was put aside is last."""
        with self._lock:
            notes, aside = list(self._notes.values()), self._aside
        by_outcome: dict[str, list[_Note]] = {}
        for note in notes:
            by_outcome.setdefault(note.file.outcome, []).append(note)
        more = collections.Counter(aside.more)
        listed: list[InboxFile] = []
        for outcome, found in by_outcome.items():
            newest = heapq.nlargest(MAX_LISTED, found, key=lambda note: note.since_s)
            listed += [note.file for note in newest]
            more[outcome] += len(found) - len(newest)
        files = sorted(listed, key=lambda file: file.name)
        return Listing([*files, *aside.files], {key: many for key, many in more.items() if many})

    def forget_all_but(self, names: Container[str]) -> None:
        """Forget the files that are gone."""
        with self._lock:
            self._notes = {name: note for name, note in self._notes.items() if name in names}

    def read_aside(self, names: Iterable[str]) -> None:
        """Read the notes beside the files that were put aside; `names` are all there are."""
        aside = list(names)
        newest = sorted(heapq.nlargest(MAX_LISTED, aside, key=self._put_aside_at))
        read = [self._read_aside(name) for name in newest]
        with self._lock:
            self._aside = Listing(read, {"refused": len(aside) - len(newest)})

    def _put_aside_at(self, name: str) -> int:
        with contextlib.suppress(OSError):
            return (self._folder / name).lstat().st_ctime_ns
        return 0

    def _read_aside(self, name: str) -> InboxFile:
        """Say why a file was put aside, from the note beside it."""
        message, mend = "it was refused", "Remove it, or replace it by a good one"
        with (
            contextlib.suppress(OSError, ArchiveError),
            open_dropped(self._folder / f"{name}.txt") as note,
        ):
            parts = note.read(_MAX_NOTE_BYTES).decode(errors="replace").split("\n\n")
            message = parts[1].strip() if len(parts) > 1 else message
            mend = parts[2].strip().removeprefix(MEND) if len(parts) > 2 else mend
        return InboxFile(name_text(name), "refused", _line(message), _line(mend))

    def judged_before(self, name: str) -> bool:
        """Whether this very content was ignored or refused already, and could not be moved."""
        known = self._notes.get(name)
        if known is None or known.file.outcome not in _FINAL:
            return False
        with contextlib.suppress(OSError):
            return known.content == Content.of((self._folder / name).lstat())
        return False

    def wait(self, name: str, message: str, mend: str = "") -> None:
        """Note why a file is left where it is."""
        known = self._notes.get(name)
        if known and (known.file.outcome, known.file.message) != ("waiting", _line(message)):
            known = None
        self.note(name, "waiting", message, mend, known=known)

    def copying(self, name: str, have: int, need: int) -> None:
        """Note how far a copy is, and when it has stopped to grow."""
        known = self._notes.get(name)
        if known and (known.file.have_bytes != have or known.file.outcome not in _UNFINISHED):
            known = None
        if known and self._clock() - known.since_s > STALLED_AFTER_S:
            message = "the copy is not complete and does not grow any more"
            self.note(name, "stalled", message, "Copy it again", have, need, known)
        else:
            self.note(name, "waiting", "the copy is not complete yet", "", have, need, known)

    def copied(self, name: str) -> None:
        """Say no more that a file is not complete."""
        known = self._notes.get(name)
        if known and (known.file.have_bytes or known.file.need_bytes):
            self.forget(name)

    def note(
        self,
        name: str,
        outcome: Outcome,
        message: str,
        mend: str = "",
        have: int = 0,
        need: int = 0,
        known: _Note | None = None,
    ) -> None:
        """Note what is to be said of a file; since then, or since it was said in `known`."""
        try:
            content = Content.of((self._folder / name).lstat())
        except OSError:
            return
        before = self._notes.get(name)
        if not before or before.file.outcome != outcome:
            log.info("inbox: %s: %s", name_text(name), message)
        since = known.file.since if known else dt.datetime.now(dt.UTC)
        since_s = known.since_s if known else self._clock()
        file = InboxFile(name_text(name), outcome, _line(message), _line(mend), have, need, since)
        with self._lock:
            self._notes[name] = _Note(content, file, since_s)

    def forget(self, name: str) -> None:
        """Say nothing of a file any more."""
        with self._lock:
            self._notes.pop(name, None)


def name_text(name: str) -> str:
    """Give a file name as printable text; what is none in it is spelled out."""
    return _printable(os.fsencode(name).decode(errors="backslashreplace"))


def _line(text: str) -> str:
    """Give a text that anybody may have written as one printable line that is not long."""
    found = _printable(" ".join(text.split()))
    return found if len(found) <= MAX_TEXT else f"{found[: MAX_TEXT - 1]}…"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    spelled = (one if one.isprintable() else ascii(one)[1:-1] for one in text)
    return "".join(spelled)
