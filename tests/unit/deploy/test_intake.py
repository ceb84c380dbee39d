"""Taking bundles in: what is held against a file, and what only makes it be looked at again."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from superbrain.bundle.store import Store
from superbrain.deploy import intake as rules
from superbrain.deploy.host_clock import HostClock
from superbrain.deploy.inbox import Inbox
from superbrain.deploy.intake import Intake
from superbrain.deploy.journal import Journal
from superbrain.deploy.trust_keeper import TrustKeeper
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment
from superbrain.host.audit_log import AuditLog
from tests.support.bundles import make_bundle, make_trust_folder, sign_key
from tests.support.clocks import Clock

SETTLE_S = 3.0


class Stage:
    """A dropped bundle and everything that takes it in; `on_wait` happens at every wait."""

    def __init__(self, folder: Path) -> None:
        author = sign_key(folder / "keys")
        bundle = make_bundle(folder, author)
        self.good = bundle.path.read_bytes()
        self.clock = Clock()
        self.waits = 0
        self.on_wait: Callable[[], None] = lambda: None
        self.journal = Journal(folder / "journal.sqlite")
        self.path = folder / "inbox" / "a.sbb"
        self.path.parent.mkdir()
        self.inbox = Inbox(self.path.parent, SETTLE_S, self.clock)
        trust = make_trust_folder(folder / "trust", author)
        clock, audit = HostClock(self.journal), AuditLog(folder)
        keeper = TrustKeeper(trust, folder / "chains", self.journal, clock, audit)
        keeper.load()
        self.intake = Intake(self.journal, Store(folder / "store"), self.inbox, keeper)
        self.deployment = self.journal.create(
            Deployment(
                id=0,
                name="adder",
                version="1.0.0",
                sequence=1,
                digest=bundle.digest,
                ladder=("onnxruntime:cpu",),
                source=str(self.path),
            ),
            dt.datetime.now(dt.UTC),
        )

    @property
    def damaged(self) -> bytes:
        data = bytearray(self.good)
        data[-3000] ^= 1
        return bytes(data)

    def drop(self, data: bytes, mtime_s: float) -> None:
        self.path.write_bytes(data)
        os.utime(self.path, (mtime_s, mtime_s))

    def take_in(self) -> life.Event:
        return asyncio.run(self.intake.take_in(self.deployment))

    async def wait(self, _seconds: float) -> None:
        self.waits += 1
        self.on_wait()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path)
    monkeypatch.setattr(asyncio, "sleep", made.wait)
    yield made
    made.journal.close()


def test_a_good_bundle_is_taken_whatever_its_time_says(stage: Stage) -> None:
    stage.drop(stage.good, mtime_s=4e9)
    assert isinstance(stage.take_in(), life.Trusted)
    assert stage.waits == 0


def test_a_damaged_bundle_of_the_future_is_refused_once_it_has_settled(stage: Stage) -> None:
    stage.drop(stage.damaged, mtime_s=4e9)

    def pass_a_second() -> None:
        stage.clock.now_s += 1

    stage.on_wait = pass_a_second
    happened = stage.take_in()
    assert isinstance(happened, life.Refused)
    assert happened.reason.code.startswith("ARCHIVE_")
    assert stage.waits == SETTLE_S
    assert stage.path.with_name("a.sbb.refused").exists()


def test_a_file_that_becomes_good_while_it_settles_is_taken(stage: Stage) -> None:
    stage.drop(stage.damaged, mtime_s=1)

    def write_the_rest() -> None:
        stage.drop(stage.good, mtime_s=2)
        stage.clock.now_s += SETTLE_S

    stage.on_wait = write_the_rest
    assert isinstance(stage.take_in(), life.Trusted)


def test_a_file_that_is_written_to_all_the_time_is_neither_refused_nor_waited_for_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_WAITS", 2000)  # more than Python has room for on its stack
    stage.drop(stage.damaged, mtime_s=0)
    stage.on_wait = lambda: stage.drop(stage.damaged, mtime_s=stage.waits)
    happened = stage.take_in()
    assert isinstance(happened, life.Abandoned)
    assert happened.reason.code == "FILE_NOT_SETTLED"
    assert stage.path.exists()


def test_a_file_that_changes_at_every_look_is_looked_at_so_many_times(stage: Stage) -> None:
    """It settles in between: the clock goes on, and what was read is not what is there."""
    looks = 0
    receive = stage.intake._receive

    async def write_while_it_is_read(*given: object) -> life.Event:
        nonlocal looks
        looks += 1
        stage.drop(stage.damaged, mtime_s=looks)
        stage.clock.now_s += SETTLE_S
        return await receive(*given)  # type: ignore[arg-type]

    stage.intake._receive = write_while_it_is_read  # type: ignore[method-assign,assignment]
    stage.on_wait = lambda: setattr(stage.clock, "now_s", stage.clock.now_s + SETTLE_S)
    stage.drop(stage.damaged, mtime_s=0)
    happened = stage.take_in()
    assert isinstance(happened, life.Abandoned)
    assert looks == rules.MAX_LOOKS
