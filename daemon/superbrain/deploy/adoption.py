"""Adoption: what the journal has lost, serves again from the store.

The journal may be damaged, gone, or older than it was. A damaged one is kept beside itself as
`journal.sqlite.damaged-TIME`, and a new one is begun. Then every model of which the store has a
good bundle and the journal no usable version is entered again: the version that served last, the
one below it as what a rollback returns to, and the highest sequence as the floor. Signatures are
checked by the trust that counts now and every byte is hashed; whether it serves, its proof decides.
A bundle that this trust does not vouch for stays in the store, and health says so: the trust may be
what is at fault, and there may be no other copy.

Which version of which model served is also written to `serving.json`, so that a version that was
rolled back or a model that was retired does not come back for want of a journal. Without that file
the highest sequence of each model is taken.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

import msgspec

from superbrain.bundle.disk import rename
from superbrain.deploy.journal import Journal
from superbrain.deploy.journal_file import JournalDamaged, JournalError
from superbrain.domain.deployment import Deployment, State
from superbrain.domain.errors import BundleError, SignatureRefused, TrustUnusable
from superbrain.domain.health import Problem
from superbrain.host.events import Event
from superbrain.host.files import write_atomically
from superbrain.host.logs import event

if TYPE_CHECKING:
    from pathlib import Path

    from superbrain.bundle.store import Store
    from superbrain.domain.manifest import Manifest
    from superbrain.domain.trust import Trust

log = logging.getLogger(__name__)

_NOT_TO_BE_MENDED = frozenset({"BUNDLE_REVOKED", "ENVELOPE_MALFORMED", "SIGNATURE_INVALID"})
_DAMAGED = ".damaged-"


class Serving(msgspec.Struct, frozen=True):
    """The digest of what serves, by model."""

    models: dict[str, str] = {}


class Stored(msgspec.Struct, frozen=True):
    """A good bundle in the store."""

    digest: str
    manifest: Manifest
    signers: tuple[str, ...]


def open_journal(path: Path) -> Journal:
    """Open the journal; put a damaged one aside and begin a new one.

    Raises:
        JournalError: it can be neither opened nor put aside.
    """
    try:
        return Journal(path)
    except JournalDamaged as damaged:
        aside = f"{_DAMAGED}{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}"
        kept = path.with_name(path.name + aside)
        try:
            for suffix in ("", "-wal", "-shm"):
                part = path.with_name(path.name + suffix)
                if part.exists():
                    rename(part, path.with_name(f"{path.name}{aside}{suffix}"))
        except OSError as error:
            msg = f"{damaged.message}, and it cannot be put aside: {error.strerror}"
            raise JournalError(msg, mend="Check the disk and its permissions") from error
        event(log, Event.JOURNAL_DAMAGED, logging.ERROR, damaged.message, kept=str(kept))
        return Journal(path)


class Adoption:
    """Knows what served, beside the journal at `path`."""

    def __init__(self, journal: Journal, store: Store, path: Path) -> None:
        self._journal = journal
        self._store = store
        self._damaged = f"{path.name}{_DAMAGED}*Z"
        self._path = path.with_name("serving.json")
        self._written = self._read()
        self._trouble = ""
        self._doubted: dict[str, BundleError] = {}

    def problems(self) -> list[Problem]:
        """Tell of damaged journals that nobody has removed yet, and of bundles not vouched for."""
        mend = "See what serves with `superbrain status`, then remove that file"
        found = "the journal was damaged and begun anew from the store; see"
        damaged = sorted(self._path.parent.glob(self._damaged))
        problems = [Problem("warning", "journal", f"{found} {path}", mend) for path in damaged]
        if self.doubted():
            problems.append(self._doubts())
        return problems

    def doubted(self) -> set[str]:
        """Give the bundles that no journal knows and no trust vouches for: they must stay."""
        for digest in set(self._doubted).difference(self._store.digests()):
            del self._doubted[digest]  # somebody has removed it
        for digest in [*self._doubted]:
            if self._journal.newest_with_digest(digest) is not None:
                del self._doubted[digest]  # it was dropped again
        return set(self._doubted)

    def _doubts(self) -> Problem:
        digest, error = next(iter(self._doubted.items()))
        count = len(self._doubted)
        which = f"bundle {digest[:12]}" if count == 1 else f"{count} bundles, {digest[:12]} first,"
        return Problem(
            "critical",
            "store",
            f"the journal does not know {which} and cannot take it from the store: {error.message}",
            f"{error.mend or 'Mend the trust folder'}; then restart superbraind, and it serves "
            "again. Or have them forgotten: remove their folders from the store",
        )

    def remember(self) -> None:
        """Write down what serves now, if that has changed."""
        found = {name: self._journal.current(name) for name in self._journal.models()}
        before = self._written.models if self._written else {}
        unknown = {name: digest for name, digest in before.items() if name not in found}
        known = {name: one.digest for name, one in found.items() if one is not None}
        serving = Serving(unknown | known)
        if serving == self._written:
            return
        try:
            write_atomically(self._path, msgspec.json.encode(serving), durable=True)
        except OSError as error:
            self._say(f"{self._path} cannot be written: {error.strerror}")
        else:
            self._written = serving
            self._trouble = ""

    def adopt(self, trust: Trust) -> None:
        """Enter what the journal has lost; the log says what cannot be trusted and stays out."""
        try:
            for name, bundles in self._lost(trust).items():
                served = self._served_last(name, bundles)
                if served is not None:
                    self._enter(served, [one for one in bundles if one is not served])
        except (JournalError, BundleError) as error:  # what the journal knows serves all the same
            event(log, Event.TASK_FAILED, logging.ERROR, error.message)

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            event(log, Event.HEALTH_WRITE_FAILED, logging.ERROR, trouble)
        self._trouble = trouble

    def _lost(self, trust: Trust) -> dict[str, list[Stored]]:
        """Give the good bundles of every model of which none can serve, highest sequence first."""
        there = self._store.digests()
        known = {name for name in self._journal.models() if self._usable(name, there)}
        lost: dict[str, list[Stored]] = {}
        for digest in there:
            deployment = self._journal.newest_with_digest(digest)
            if deployment is not None and deployment.name in known:
                continue  # the rule on every start: nothing is hashed that the journal accounts for
            stored = self._good(digest, trust)
            if stored is not None and stored.manifest.name not in known:
                lost.setdefault(stored.manifest.name, []).append(stored)
        for bundles in lost.values():
            bundles.sort(key=lambda one: -one.manifest.sequence)
        return lost

    def _usable(self, name: str, there: tuple[str, ...]) -> bool:
        """Whether the journal knows what to do: what serves, or what served before, is there."""
        current = self._journal.current(name)
        if current is None:
            return True  # retired, or never live: that is known too
        previous = self._journal.get(current.predecessor)
        return any(one.digest in there for one in (current, previous) if one is not None)

    def _good(self, digest: str, trust: Trust) -> Stored | None:
        try:
            signers = self._store.verify(digest, trust)
            return Stored(digest, self._store.rehash(digest), signers)
        except BundleError as error:
            log.warning("store: %s is not adopted: %s", digest, error.message)
            of_trust = isinstance(error, (TrustUnusable, SignatureRefused))
            if of_trust and error.reason not in _NOT_TO_BE_MENDED:
                self._doubted[digest] = error
            return None

    def _served_last(self, name: str, bundles: list[Stored]) -> Stored | None:
        """Tell which of a model's bundles served; None when it is written that none did."""
        known = self._written
        if known is not None and name not in known.models:
            return None
        digest = known.models[name] if known is not None else ""
        return next((one for one in bundles if one.digest == digest), bundles[0])

    def _read(self) -> Serving | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Serving)
        except (OSError, msgspec.MsgspecError):
            return None

    def _enter(self, served: Stored, others: list[Stored]) -> None:
        now = dt.datetime.now(dt.UTC)
        below = [one for one in others if one.manifest.sequence < served.manifest.sequence]
        predecessor = 0
        for one in below[:1]:
            predecessor = self._journal.create(_deployment(one, State.RETIRED), now).id
        current = self._journal.create(_deployment(served, State.LIVE, predecessor), now)
        for one in sorted((served, *others), key=lambda one: one.manifest.sequence):
            accepted = msgspec.structs.replace(
                current, sequence=one.manifest.sequence, digest=one.digest
            )
            self._journal.accept(accepted, list(one.signers), now)
        self._journal.make_current(current, now)
        event(
            log, Event.MODEL_ADOPTED, logging.WARNING, model=current.name, version=current.version
        )


def _deployment(stored: Stored, state: State, predecessor: int = 0) -> Deployment:
    manifest = stored.manifest
    return Deployment(
        id=0,
        name=manifest.name,
        version=manifest.version,
        sequence=manifest.sequence,
        digest=stored.digest,
        ladder=tuple(manifest.ladder),
        select=manifest.select,
        state=state,
        predecessor=predecessor,
    )
