"""What the daemon does to its disk, each as a scene that can be cut at every operation.

A scene is prepared in a folder of its own, acted, and then looked at: `wrong` says what may never
be, however it was cut, and with `done` also what of it must have come to pass. `begin` stands for a
new start of the daemon.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
from pathlib import Path

from superbrain.bundle.archive import VerifiedBundle
from superbrain.bundle.store import Store
from superbrain.bundle.trust_chain import TrustChain, read_update
from superbrain.deploy.dropped import Content
from superbrain.deploy.inbox import Inbox
from superbrain.deploy.journal import Journal
from superbrain.domain.audit import Action
from superbrain.domain.deployment import Deployment, Reason, Settled, advance
from superbrain.domain.errors import StoreError
from superbrain.host.audit_log import AuditLog, verify_folder
from superbrain.host.files import write_atomically
from tests.support.bundles import sign_key, trust_in
from tests.support.trust import make_update

NOW = dt.datetime(2026, 3, 1, 9, 30, tzinfo=dt.UTC)
REASON = Reason("SIGNATURE", "it is no good", "Make another")


class Scene:
    """Base of all scenes.

    Args:
        at: an empty folder.
        file: a good bundle.
        opened: the same, verified.
    """

    def __init__(self, at: Path, file: Path, opened: VerifiedBundle) -> None:
        self.at = at
        self.file = file
        self.opened = opened
        self.prepare()
        self.begin()

    def prepare(self) -> None:
        """Make what is there before."""

    def begin(self) -> None:
        """Start as the daemon starts."""

    def act(self) -> None:
        """Do what the scene is about."""
        raise NotImplementedError

    def mended(self) -> None:
        """Do what the daemon does by itself once the disk is good again."""

    def wrong(self, *, done: bool) -> str:
        """Say what is wrong; empty for nothing."""
        raise NotImplementedError


# --- the store ------------------------------------------------------------------------------------


class _InStore(Scene):
    def begin(self) -> None:
        self.store = Store(self.at / "store", reserve_bytes=0)
        self.store.sweep_staging()

    def mended(self) -> None:
        self.store.sweep_leftovers()

    def receive(self) -> None:
        with self.file.open("rb") as file:
            self.store.receive(file, self.opened)

    def wrong(self, *, done: bool) -> str:
        there = self.store.digests()
        if done and not self.kept(there):
            return f"expected the scene to have happened, found {there}"
        if done and (left := _names(self.at / "store/.staging")):
            return f"left in staging: {left}"
        return "" if all(self._whole(digest) for digest in there) else "a bundle is not whole"

    def _whole(self, digest: str) -> bool:
        try:
            self.store.rehash(digest)
        except StoreError:
            return False
        return True

    def kept(self, digests: tuple[str, ...]) -> bool:
        return digests == (self.opened.digest,)


class TakeIn(_InStore):
    """A bundle is copied into the store."""

    def act(self) -> None:
        self.receive()


class TakeInAgain(_InStore):
    """A bundle that is in the store, and damaged there, is copied into it again."""

    def prepare(self) -> None:
        self.store = Store(self.at / "store", reserve_bytes=0)
        self.receive()
        harmed = self.store.path(self.opened.digest) / "graphs/main.onnx"
        harmed.chmod(0o600)
        harmed.write_bytes(b"harmed")

    def act(self) -> None:
        self.receive()

    def wrong(self, *, done: bool) -> str:
        return super().wrong(done=done) if done else ""  # harmed is what it was before


class Collect(_InStore):
    """A bundle is removed from the store."""

    def prepare(self) -> None:
        self.store = Store(self.at / "store", reserve_bytes=0)
        self.receive()

    def act(self) -> None:
        self.store.remove(self.opened.digest)

    def kept(self, digests: tuple[str, ...]) -> bool:
        return digests == ()


class Sweep(_InStore):
    """What a killed daemon left in staging is swept at the start."""

    def prepare(self) -> None:
        self.store = Store(self.at / "store", reserve_bytes=0)
        self.receive()
        left = self.at / "store/.staging"
        shutil.copytree(self.store.path(self.opened.digest), left / "half")
        (left / "link").symlink_to(self.store.path(self.opened.digest))

    def begin(self) -> None:
        self.store = Store(self.at / "store", reserve_bytes=0)

    def act(self) -> None:
        self.store.sweep_staging()


# --- the inbox ------------------------------------------------------------------------------------


class _InInbox(Scene):
    def prepare(self) -> None:
        (self.at / "inbox").mkdir()
        self.dropped = Path(shutil.copy(self.file, self.at / "inbox" / "a.sbb"))

    def begin(self) -> None:
        self.inbox = Inbox(self.at / "inbox", settle_s=0.0)
        self.inbox.check_usable()

    def names(self) -> set[str]:
        return _names(self.at / "inbox")


class Refuse(_InInbox):
    """A dropped file is put aside, with a note that says why."""

    def act(self) -> None:
        if self.dropped.exists():
            self.inbox.refuse(self.dropped, REASON)

    def wrong(self, *, done: bool) -> str:
        aside, note = "a.sbb.refused", "a.sbb.refused.txt"
        if done and self.names() != {aside, note}:
            return f"expected the file aside and its note, found {self.names()}"
        if len(self.names() & {"a.sbb", aside}) != 1:
            return f"expected the file once, found {self.names()}"
        if aside in self.names() and note not in self.names():
            return "it is put aside without a reason"
        return ""


class LetGo(_InInbox):
    """A dropped file whose bytes are in the store is removed."""

    def act(self) -> None:
        if self.dropped.exists():
            self.inbox.taken(self.dropped, Content.of(self.dropped.lstat()))

    def wrong(self, *, done: bool) -> str:
        return "it is still there" if done and self.names() else ""


# --- small files ----------------------------------------------------------------------------------


class Report(Scene):
    """A health report takes the place of the one before."""

    def prepare(self) -> None:
        self.path = self.at / "health.json"
        self.path.write_bytes(b"old" * 100)

    def act(self) -> None:
        write_atomically(self.path, b"new" * 100)

    def wrong(self, *, done: bool) -> str:
        found = self.path.read_bytes()
        if found != b"new" * 100 and (done or found != b"old" * 100):
            return f"expected the one or the other, found {found!r}"
        left = _names(self.at) - {self.path.name}
        return f"left: {left}" if done and left else ""


# --- the trail and the chain of trust -------------------------------------------------------------


class Audit(Scene):
    """Entries are added to the trail, which goes on in another file meanwhile."""

    def begin(self) -> None:
        self.trail = AuditLog(self.at, max_bytes=600, keep_files=2)
        self.trail.open()

    def act(self) -> None:
        for number in range(4):
            self.trail.write(Action.ORDER, f"retire model-{number}", "carried out")

    def mended(self) -> None:
        self.trail.write(Action.ORDER, "retry", "asked")

    def wrong(self, *, done: bool) -> str:
        if not done:
            return ""  # half an entry may be there until the next write or start
        chain = verify_folder(self.at)
        newest = [entry.subject for entry in self.trail.newest(6)]
        if chain.faults:
            return f"the chain has faults: {chain.faults}"
        return "" if "retire model-3" in newest else f"expected the last order, found {newest}"


class TrustUpdate(Scene):
    """A trust update becomes part of the chain."""

    def prepare(self) -> None:
        author = sign_key(self.at / "keys")
        self.before = trust_in(author)
        self.update = read_update(make_update(1, [author], signed_by=[author]))

    def begin(self) -> None:
        self.chain = TrustChain(self.at / "chain", self.before)

    def act(self) -> None:
        self.chain.append(self.update)

    def wrong(self, *, done: bool) -> str:
        found = [signed.update.sequence for signed, _ in self.chain.walk()]
        return "" if found == [1] or (not done and not found) else f"expected it, found {found}"


# --- the journal ----------------------------------------------------------------------------------


class _InJournal(Scene):
    def begin(self) -> None:
        self.journal = Journal(self.at / "journal.sqlite")
        self.one = self.journal.get(1) or self.journal.create(_deployment(1), NOW)

    def wrong(self, *, done: bool) -> str:
        with sqlite3.connect(self.at / "journal.sqlite") as db:
            (said,) = db.execute("PRAGMA integrity_check").fetchone()
            orphans = db.execute("PRAGMA foreign_key_check").fetchall()
        db.close()
        if said != "ok" or orphans:
            return f"{said} {orphans}"
        return "" if self.happened() or not done else "it has not happened"

    def happened(self) -> bool:
        raise NotImplementedError


class Create(_InJournal):
    """A deployment is begun."""

    def act(self) -> None:
        self.journal.create(_deployment(2), NOW)

    def happened(self) -> bool:
        return len(self.journal.of_model("ocr")) >= 2


class Step(_InJournal):
    """A step of a deployment is written down."""

    def act(self) -> None:
        after, _ = advance(self.one, Settled())
        self.journal.record(self.one, "Settled", after, NOW)

    def happened(self) -> bool:
        found = self.journal.get(self.one.id)
        return found is not None and found.state == "VERIFYING"


class Commit(_InJournal):
    """Another version becomes the one that serves."""

    def act(self) -> None:
        self.journal.make_current(self.one, NOW)

    def happened(self) -> bool:
        return self.journal.current("ocr") == self.one


class Forget(_InJournal):
    """The past of a deployment is forgotten."""

    def act(self) -> None:
        self.journal.prune("ocr", ())

    def happened(self) -> bool:
        return self.journal.get(self.one.id) is None


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _deployment(sequence: int) -> Deployment:
    made = {"version": f"{sequence}.0.0", "digest": "ab" * 32, "ladder": ("one",)}
    return Deployment(id=0, name="ocr", sequence=sequence, **made)  # type: ignore[arg-type]


SCENES = (
    TakeIn,
    TakeInAgain,
    Collect,
    Sweep,
    Refuse,
    LetGo,
    Report,
    Audit,
    TrustUpdate,
    Create,
    Step,
    Commit,
    Forget,
)
