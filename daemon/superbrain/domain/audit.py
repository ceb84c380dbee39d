"""The audit trail: who changed what, as a chain of entries in which a cut or an edit shows.

Every entry is one line of JSON and carries the sha256 of the line before it, so changing, removing
or inserting a line breaks the chain at that place. What is missing at the end shows by the *head*,
the newest entry's number and hash, which is kept beside the files. Old files are let go when there
are too many; an entry says up to where, so a missing beginning is told from one that was let go.

The chain proves that nobody changed the past by accident or without knowing it. Who may write the
state folder can write a whole new chain; against that, send the log to another host.

>>> chain = check_chain([])
>>> chain.faults
[]
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import Iterable

import msgspec

NOTHING = "0" * 64
FAULTS_SHOWN = 20


class Action(enum.StrEnum):
    """What an entry is about."""

    TRAIL_BEGUN = "trail_begun"
    TRAIL_BROKEN = "trail_broken"
    TRAIL_SHORTENED = "trail_shortened"
    ENTRIES_LOST = "entries_lost"
    DAEMON_STARTED = "daemon_started"
    DAEMON_STOPPED = "daemon_stopped"
    ORDER = "order"
    STRANGER = "stranger"
    RELOADED = "reloaded"
    BUNDLE_ACCEPTED = "bundle_accepted"
    BUNDLE_REFUSED = "bundle_refused"
    VERSION_CHANGED = "version_changed"
    VERSION_ENDED = "version_ended"
    TRUST_CHANGED = "trust_changed"
    TRUST_REFUSED = "trust_refused"
    REVOKED = "revoked"
    RESTORED = "restored"


class Peer(msgspec.Struct, frozen=True):
    """The process at the other end of the control socket, as the kernel names it."""

    uid: int
    gid: int
    pid: int


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was done, tried or found; `peer` is who asked, None for the daemon itself."""

    sequence: int
    at: dt.datetime
    action: str
    previous: str
    subject: str = ""
    outcome: str = ""
    detail: str = ""
    peer: Peer | None = None


class Link(msgspec.Struct, frozen=True):
    """A place in the chain: an entry's number and the sha256 of its line."""

    sequence: int = 0
    sha256: str = NOTHING


class Chain(msgspec.Struct):
    """What was found in a row of lines; `faults` are sentences, empty when all is as written."""

    entries: int = 0
    first: int = 0
    last: Link = Link()
    faults: list[str] = []

    def fault(self, sentence: str) -> None:
        """Note that something is not as it was written; the first ones are the telling ones."""
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(sentence)


def link_of(line: bytes, sequence: int) -> Link:
    """Give the link to a line, which comes without its newline."""
    return Link(sequence, hashlib.sha256(line).hexdigest())


def encode_entry(entry: Entry) -> bytes:
    """Give an entry's line, without the newline."""
    return msgspec.json.encode(entry)


def check_chain(lines: Iterable[bytes], *, begins_after: Link | None = None) -> Chain:
    """Check a row of lines, from the oldest on.

    Args:
        lines: without their newlines.
        begins_after: where the row must go on; None when its beginning is to be believed if it
            is entry 1 or some entry says that those before it were let go.
    """
    chain = Chain(last=begins_after or Link(), faults=[])
    let_go: set[int] = set()
    for line in lines:
        entry = _decode(line)
        if entry is None:
            chain.fault(f"the line after entry {chain.last.sequence} is no entry")
            chain.last = link_of(line, chain.last.sequence + 1)
            continue
        if chain.entries or begins_after is not None:
            _check_link(chain, entry)
        else:
            chain.first = entry.sequence
        if entry.action in (Action.TRAIL_SHORTENED, Action.TRAIL_BEGUN):
            let_go.add(int(entry.subject) if entry.subject.isdigit() else 0)
        chain.entries += 1
        chain.last = link_of(line, entry.sequence)
    if begins_after is None and chain.first > 1 and chain.first - 1 not in let_go:
        chain.faults.insert(0, f"expected entry 1 first, found {chain.first}: the beginning is cut")
    return chain


def check_head(chain: Chain, head: Link) -> None:
    """Note that the newest entries are gone, if the head knows of later ones than the chain."""
    if head.sequence > chain.last.sequence:
        chain.fault(
            f"expected entries up to {head.sequence}, found the last one to be "
            f"{chain.last.sequence}: the end is cut"
        )
    elif head.sequence == chain.last.sequence and head.sha256 != chain.last.sha256:
        chain.fault(f"entry {head.sequence} is not the one that was written")


def _check_link(chain: Chain, entry: Entry) -> None:
    before = chain.last.sequence
    if entry.previous != chain.last.sha256:
        chain.fault(
            f"entry {entry.sequence} does not follow the line before it: entry {before} was "
            f"changed, or what stood between them is gone"
        )
    elif entry.sequence != before + 1:
        chain.fault(f"expected entry {before + 1}, found {entry.sequence}")


def _decode(line: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(line, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
