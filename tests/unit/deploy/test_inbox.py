"""The inbox: which files are complete, which wait, which are put aside."""

from __future__ import annotations

import datetime as dt
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from superbrain.deploy.dropped import Content
from superbrain.deploy.inbox import Inbox, InboxError
from superbrain.domain.deployment import Reason
from superbrain.domain.trust import Trust
from tests.support.bundles import KeyPair, make_bundle, sign_key, trust_in
from tests.support.clocks import Clock

NOTHING = Content(0, 0, 0, 0)


@pytest.fixture
def author(tmp_path: Path) -> KeyPair:
    return sign_key(tmp_path / "keys")


@pytest.fixture
def trust(author: KeyPair) -> Trust:
    return trust_in(author)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return Inbox(folder, settle_s=0.0)


def patient(inbox: Inbox) -> Inbox:
    """Give the same inbox with a settling time longer than any test."""
    return Inbox(inbox.path, settle_s=3600.0)


def bundle_bytes(tmp_path: Path, author: KeyPair, sequence: int = 1) -> bytes:
    made = make_bundle(tmp_path, author, version=f"{sequence}.0.0", sequence=sequence)
    return made.path.read_bytes()


def test_a_complete_bundle_is_found(
    tmp_path: Path, inbox: Inbox, author: KeyPair, trust: Trust
) -> None:
    (inbox.path / "a.sbb").write_bytes(bundle_bytes(tmp_path, author))
    (found,) = inbox.scan(trust)
    assert found.verified.manifest.version == "1.0.0"


def test_higher_sequences_come_first(
    tmp_path: Path, inbox: Inbox, author: KeyPair, trust: Trust
) -> None:
    for sequence, name in ((1, "a.sbb"), (2, "b.sbb")):
        (inbox.path / name).write_bytes(bundle_bytes(tmp_path, author, sequence))
    assert [found.verified.manifest.sequence for found in inbox.scan(trust)] == [2, 1]


def test_many_files_of_one_bundle_share_what_is_known_of_it(
    tmp_path: Path, inbox: Inbox, author: KeyPair, trust: Trust
) -> None:
    (inbox.path / "0.sbb").write_bytes(bundle_bytes(tmp_path, author))
    for number in range(1, 5):
        (inbox.path / f"{number}.sbb").hardlink_to(inbox.path / "0.sbb")
    found = inbox.scan(trust)
    assert len(found) == 5
    assert len({id(one.verified) for one in found}) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_part_of_a_bundle_waits(
    tmp_path: Path, inbox: Inbox, author: KeyPair, trust: Trust, share: float
) -> None:
    data = bundle_bytes(tmp_path, author)
    (inbox.path / "a.sbb").write_bytes(data[: int(share * len(data))])
    assert inbox.scan(trust) == []
    (note,) = inbox.listing().files
    assert (note.outcome, note.have_bytes) == ("waiting", int(share * len(data)))


def test_a_bundle_of_a_stranger_is_put_aside_with_the_reason(
    tmp_path: Path, inbox: Inbox, author: KeyPair
) -> None:
    (inbox.path / "a.sbb").write_bytes(bundle_bytes(tmp_path, author))
    stranger = trust_in(sign_key(tmp_path / "other", "stranger"))
    assert inbox.scan(stranger) == []
    assert {path.name for path in inbox.path.iterdir()} == {"a.sbb.refused", "a.sbb.refused.txt"}
    assert "What to do:" in (inbox.path / "a.sbb.refused.txt").read_text()


def test_content_is_not_judged_before_the_file_has_settled(inbox: Inbox, trust: Trust) -> None:
    (inbox.path / "a.sbb").write_bytes(bytes(100_000))
    waiting = patient(inbox)
    assert waiting.scan(trust) == []
    assert waiting.listing().files[0].outcome == "waiting"


@pytest.mark.parametrize("age_s", [-3600.0, 0.0, 3600.0], ids=["future", "now", "past"])
def test_content_is_judged_once_it_was_met_unchanged_for_long_enough_whatever_its_times_say(
    tmp_path: Path, trust: Trust, age_s: float
) -> None:
    clock = Clock()
    inbox = Inbox(tmp_path, settle_s=3.0, clock=clock)
    path = tmp_path / "a.sbb"
    path.write_bytes(bytes(100_000))
    written_at = time.time() - age_s
    os.utime(path, (written_at, written_at))
    there = []
    for clock.now_s in (0.0, 2.9, 3.0):
        inbox.scan(trust)
        there.append(path.exists())
    assert there == [True, True, False]


def test_a_file_that_is_written_to_begins_to_settle_anew(tmp_path: Path, trust: Trust) -> None:
    clock = Clock()
    inbox = Inbox(tmp_path, settle_s=3.0, clock=clock)
    path = tmp_path / "a.sbb"
    there = []
    for clock.now_s, written_at in ((0.0, 1), (2.0, 2), (4.0, 2), (5.0, 2)):
        path.write_bytes(bytes(100_000))
        os.utime(path, (written_at, written_at))
        inbox.scan(trust)
        there.append(path.exists())
    assert there == [True, True, True, False]


def test_a_file_of_the_future_that_was_taken_is_removed_once_it_has_settled(
    tmp_path: Path, trust: Trust
) -> None:
    clock = Clock()
    inbox = Inbox(tmp_path, settle_s=3.0, clock=clock)
    path = tmp_path / "a.sbb"
    path.write_bytes(b"first")
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    inbox.taken(path, Content.of(path.lstat()))
    assert path.exists()
    clock.now_s = 3.0
    inbox.scan(trust)
    assert not path.exists()


def test_what_was_read_is_not_settled_once_other_content_is_there(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, settle_s=0.0)
    path = tmp_path / "a.sbb"
    path.write_bytes(b"first")
    read = Content.of(path.lstat())
    assert inbox.settled(path, read)
    path.write_bytes(b"second")
    assert not inbox.settled(path, read)


def test_files_that_were_put_aside_are_not_looked_at_again(
    tmp_path: Path, inbox: Inbox, author: KeyPair, trust: Trust
) -> None:
    (inbox.path / "a.sbb").write_bytes(b"no bundle" * 1000)
    inbox.scan(trust)
    assert inbox.scan(trust) == []
    (note,) = inbox.listing().files
    assert (note.name, note.outcome) == ("a.sbb.refused", "refused")
    assert note.message
    assert not note.message.startswith("it was refused")
    assert note.mend


@pytest.mark.parametrize("name", ["notes.txt", "folder.sbb"])
def test_what_is_no_bundle_file_is_ignored(inbox: Inbox, trust: Trust, name: str) -> None:
    path = inbox.path / name
    path.mkdir() if name == "folder.sbb" else path.touch()
    assert inbox.scan(trust) == []
    assert [note.outcome for note in inbox.listing().files] == ["ignored"]
    assert path.exists()


def test_hidden_files_are_not_mentioned(inbox: Inbox, trust: Trust) -> None:
    (inbox.path / ".a.sbb.part").touch()
    assert inbox.scan(trust) == []
    assert inbox.listing().files == []


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_are_refused_and_never_opened(
    tmp_path: Path, inbox: Inbox, author: KeyPair, trust: Trust, kind: str
) -> None:
    if kind == "link":
        (tmp_path / "real.sbb").write_bytes(bundle_bytes(tmp_path, author))
        (inbox.path / "a.sbb").symlink_to(tmp_path / "real.sbb")
    else:
        os.mkfifo(inbox.path / "a.sbb")
    assert inbox.scan(trust) == []
    assert "FILE_NOT_REGULAR" in (inbox.path / "a.sbb.refused.txt").read_text()


def test_a_file_that_went_away_is_forgotten(inbox: Inbox, trust: Trust) -> None:
    path = inbox.path / "a.sbb"
    path.touch()
    inbox.scan(trust)
    path.unlink()
    inbox.scan(trust)
    assert inbox.listing().files == []


def test_taking_a_file_does_not_remove_one_that_took_its_place(inbox: Inbox) -> None:
    path = inbox.path / "a.sbb"
    path.write_bytes(b"first")
    content = Content.of(path.lstat())
    path.rename(inbox.path / "moved.sbb")
    path.write_bytes(b"second")
    inbox.taken(path, content)
    assert path.read_bytes() == b"second"


def test_a_taken_file_is_removed_once_it_has_settled(inbox: Inbox, trust: Trust) -> None:
    path = inbox.path / "a.sbb"
    path.write_bytes(b"first")
    waiting = patient(inbox)
    waiting.taken(path, Content.of(path.lstat()))
    assert waiting.scan(trust) == []
    assert path.exists()
    inbox.taken(path, Content.of(path.lstat()))
    assert not path.exists()


def test_a_file_written_anew_after_it_was_taken_is_looked_at_again(
    tmp_path: Path, inbox: Inbox, author: KeyPair, trust: Trust
) -> None:
    path = inbox.path / "a.sbb"
    path.write_bytes(b"first")
    waiting = patient(inbox)
    waiting.taken(path, Content.of(path.lstat()))
    path.write_bytes(bundle_bytes(tmp_path, author))
    assert len(waiting.scan(trust)) == 1


@pytest.mark.parametrize(("back", "new"), [(dt.timedelta(0), True), (dt.timedelta(hours=1), False)])
def test_a_file_that_came_while_the_clock_was_ahead_is_not_new_for_ever(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, back: dt.timedelta, new: bool
) -> None:
    path = inbox.path / "a.sbb"
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    path.touch()
    now = dt.datetime.now(dt.UTC) - back
    monkeypatch.setattr("superbrain.deploy.inbox._now", lambda: now)
    assert (inbox.arrived_at(path) > before - back) == new


def test_a_folder_that_is_missing_is_an_error_with_a_mend(tmp_path: Path) -> None:
    with pytest.raises(InboxError, match="cannot be read") as caught:
        Inbox(tmp_path / "nowhere", 0.0).scan(Trust())
    assert caught.value.mend


def test_a_refusal_that_cannot_be_written_down_is_still_shown(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, 0.0)
    (tmp_path / "a.sbb").write_bytes(b"x")
    (tmp_path / "a.sbb.refused.txt").mkdir()
    inbox.refuse(tmp_path / "a.sbb", Reason("CODE", "it is bad", "make it good"))
    (note,) = inbox.listing().files
    assert (note.outcome, note.mend) == ("refused", "make it good")


def test_files_may_be_taken_while_the_folder_is_looked_through(
    tmp_path: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(tmp_path / "many", settle_s=3600.0)
    inbox.path.mkdir()
    names = [f"{number}.txt" for number in range(1000)]
    for name in names:
        (inbox.path / name).touch()
    inbox.scan(trust)
    failed: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: failed.append(hook.exc_value))
    looking = threading.Thread(target=lambda: [inbox.scan(trust) for _ in range(20)])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        looking.start()
        while looking.is_alive():
            for name in names:
                inbox.taken(inbox.path / name, NOTHING)
    finally:
        looking.join()
        sys.setswitchinterval(interval)
    assert failed == []
