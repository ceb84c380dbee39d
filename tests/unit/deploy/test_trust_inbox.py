"""Trust updates in the inbox: taken in their order, however many lie there and of whatever size."""

from __future__ import annotations

import asyncio
import datetime as dt
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from superbrain.bundle.signing import TRUST_UPDATE
from superbrain.bundle.trust_chain import read_update
from superbrain.deploy.host_clock import HostClock
from superbrain.deploy.inbox import Inbox
from superbrain.deploy.journal import Journal
from superbrain.deploy.trust_inbox import TrustInbox
from superbrain.deploy.trust_keeper import MAX_FORGED, Offered, TrustKeeper
from superbrain.domain.trust_update import RevokedBundle
from superbrain.host.audit_log import AuditLog
from tests.support.bundles import make_trust_folder, sign_key
from tests.support.trust import make_update, put

NOW = dt.datetime(2025, 9, 1, tzinfo=dt.UTC)
LONGEST = TRUST_UPDATE.max_envelope_bytes


class Stage:
    """A keeper of trust, and an inbox in front of it."""

    def __init__(self, folder: Path) -> None:
        self.author = sign_key(folder / "keys")
        self.stranger = sign_key(folder / "keys", "stranger")
        self.journal = Journal(folder / "journal.sqlite")
        (folder / "inbox").mkdir()
        self.inbox = Inbox(folder / "inbox", settle_s=0.0)
        clock, audit = HostClock(self.journal, lambda: NOW), AuditLog(folder)
        trust = make_trust_folder(folder / "trust", self.author)
        self.keeper = TrustKeeper(trust, folder / "chains", self.journal, clock, audit)
        self.keeper.load()
        self.updates = TrustInbox(self.inbox, self.keeper, audit)

    def made(self, sequence: int, **changes: Any) -> bytes:  # noqa: ANN401 - fields of TrustUpdate
        return make_update(sequence, [self.author], signed_by=[self.author], **changes)

    def forged(self, sequence: int, number: int = 0) -> bytes:
        """An update that only a stranger has signed; `number` tells it from others."""
        keys = [self.stranger]
        return make_update(sequence, keys, signed_by=keys, note=f"number {number}")

    def put(self, name: str, data: bytes) -> Path:
        return put(self.inbox.path, name, data)

    def look(self) -> bool:
        return asyncio.run(self.updates.look())

    @property
    def sequence(self) -> int:
        return self.keeper.standing.sequence

    def said(self) -> dict[str, str]:
        return {file.name: file.message for file in self.inbox.listing().files}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.journal.close()


def test_however_many_updates_lie_there_the_bytes_of_one_at_a_time_are_held(stage: Stage) -> None:
    for number in range(50):  # sparse: they take no disk
        with (stage.inbox.path / f"{number}.sbt").open("wb") as file:
            file.truncate(LONGEST)
    many = [RevokedBundle(f"{number:064x}", why="y" * 50) for number in range(1500)]
    for number in range(50):
        stage.put(f"early-{number}.sbt", stage.made(number + 2, revoked_bundles=many))
    tracemalloc.start()
    try:
        stage.look()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 * LONGEST, "with all that is made of one while it is read"
    assert len(list(stage.inbox.path.glob("*.sbt.refused"))) == 50
    assert len(list(stage.inbox.path.glob("early-*.sbt"))) == 50


def test_updates_are_taken_by_their_numbers_whatever_the_files_are_called(stage: Stage) -> None:
    for number, name in enumerate(("c.sbt", "b.sbt", "a.sbt"), start=1):
        stage.put(name, stage.made(number))
    assert stage.look()
    assert stage.sequence == 3
    assert list(stage.inbox.path.iterdir()) == []


@pytest.mark.parametrize(("late_s", "waits"), [(0, True), (1, False)])
def test_expiry_bounds_only_the_import_of_the_newest(
    stage: Stage, late_s: int, *, waits: bool
) -> None:
    stage.put("a.sbt", stage.made(1, expires=NOW + dt.timedelta(seconds=late_s)))
    assert stage.look() != waits
    stage.put("b.sbt", stage.made(2))
    assert stage.look()
    assert stage.sequence == 2


def test_one_that_comes_too_early_is_not_read_again_until_it_changes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    opened = stage.inbox.open

    def open_and_count(path: Path) -> Any:  # noqa: ANN401
        read.append(path.name)
        return opened(path)

    monkeypatch.setattr(stage.inbox, "open", open_and_count)
    stage.put("late.sbt", stage.made(5))
    stage.look()
    stage.look()
    assert read == ["late.sbt"]
    assert "waits for number 1" in stage.said()["late.sbt"]
    stage.put("late.sbt", stage.made(1))
    assert stage.look()
    assert stage.sequence == 1


def put_last(stage: Stage, name: str, data: bytes, *, after: Path) -> None:
    """Put an update there as soon as the file system's clock has ticked."""
    while stage.put(name, data).stat().st_ctime_ns == after.stat().st_ctime_ns:
        pass


def test_of_two_that_may_follow_the_one_that_came_first_counts(stage: Stage) -> None:
    first = stage.put("z.sbt", stage.made(1, note="the first"))
    put_last(stage, "a.sbt", stage.made(1, note="another"), after=first)
    assert stage.look()
    assert stage.keeper.updates[0].note == "the first"
    assert stage.inbox.path.joinpath("a.sbt.refused").exists()


def test_one_that_waited_is_taken_when_those_before_it_have_come(stage: Stage) -> None:
    stage.put("b.sbt", stage.made(2))
    stage.look()
    stage.put("a.sbt", stage.made(1))
    assert stage.look()
    assert stage.sequence == 2


def test_many_forged_ones_of_a_number_only_delay_the_right_one(stage: Stage) -> None:
    for number in range(MAX_FORGED + 1):
        last = stage.put(f"forged-{number}.sbt", stage.forged(1, number))
    put_last(stage, "a.sbt", stage.made(1), after=last)
    assert not stage.look()
    assert len(list(stage.inbox.path.glob("*.sbt.refused"))) == MAX_FORGED
    assert "judged first" in stage.said()["a.sbt"]
    assert stage.look()
    assert stage.sequence == 1


@pytest.mark.parametrize("becomes", ["forged", "gone"])
def test_what_is_read_when_it_is_taken_is_verified_again(stage: Stage, becomes: str) -> None:
    good = read_update(stage.made(1))
    then = read_update(stage.forged(1)) if becomes == "forged" else None
    reads = iter([good, then])
    (verdict,) = stage.keeper.offer([Offered.of(good, lambda: next(reads))])
    assert verdict.outcome == "waiting"
    assert "changed" in verdict.message
    assert stage.sequence == 0


def test_another_signature_over_the_same_update_is_verified_again(stage: Stage) -> None:
    good = read_update(stage.made(1))
    unsigned = make_update(1, [stage.author], signed_by=[stage.stranger])
    reads = iter([good, read_update(unsigned)])
    (verdict,) = stage.keeper.offer([Offered.of(good, lambda: next(reads))])
    assert verdict.outcome == "waiting"
    assert stage.sequence == 0
