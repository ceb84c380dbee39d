"""What is said of the files in the inbox: bounded and printable, whoever has dropped them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from superbrain.deploy.inbox_notes import MAX_LISTED, MAX_TEXT, STALLED_AFTER_S, InboxNotes
from superbrain.domain.health import InboxFile
from tests.support.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notes(tmp_path: Path, clock: Clock) -> InboxNotes:
    return InboxNotes(tmp_path, clock)


def put_aside(folder: Path, name: str, note: bytes) -> str:
    (folder / f"{name}.refused").touch()
    (folder / f"{name}.refused.txt").write_bytes(note)
    return f"{name}.refused"


def read(notes: InboxNotes, *names: str) -> list[InboxFile]:
    notes.read_aside(names)
    return notes.listing().files


def test_a_copy_that_does_not_grow_any_more_is_said_to_be_stalled(
    tmp_path: Path, notes: InboxNotes, clock: Clock
) -> None:
    (tmp_path / "a.sbb").touch()
    outcomes = []
    for have, clock.now_s in ((5, 0.0), (5, STALLED_AFTER_S), (5, 121.0), (6, 122.0)):
        notes.copying("a.sbb", have, 9)
        outcomes.append(notes.listing().files[0].outcome)
    assert outcomes == ["waiting", "waiting", "stalled", "waiting"]


@pytest.mark.parametrize("harm", [b"\x01", b"\x1b[2J", b"\xff", "\u202e".encode(), b"\n "])
def test_the_note_of_a_stranger_is_shown_as_one_short_printable_line(
    tmp_path: Path, notes: InboxNotes, harm: bytes
) -> None:
    name = put_aside(tmp_path, "a.sbb", b"x\n\n" + b"why " + harm * 65_000)
    (file,) = read(notes, name)
    assert file.message.startswith("why")
    assert file.message.isprintable()
    assert len(file.message) <= MAX_TEXT


def test_a_longer_note_is_read_as_far_as_it_is_shown(tmp_path: Path, notes: InboxNotes) -> None:
    name = put_aside(tmp_path, "a.sbb", b"x\n\n" + b"y" * 600 + b"\n\nWhat to do: copy it again")
    (file,) = read(notes, name)
    assert file.message == "y" * (MAX_TEXT - 1) + "…"
    assert file.mend == "copy it again"


def test_a_name_with_control_characters_is_spelled_out(tmp_path: Path, notes: InboxNotes) -> None:
    (tmp_path / "a\x1b[2J.txt").touch()
    notes.note("a\x1b[2J.txt", "ignored", "no bundle")
    assert notes.listing().files[0].name == r"a\x1b[2J.txt"


def test_the_newest_of_many_refused_files_are_listed_and_the_rest_is_counted(
    tmp_path: Path, notes: InboxNotes
) -> None:
    names = [put_aside(tmp_path, f"{number:03}.sbb", b"") for number in range(MAX_LISTED + 7)]
    before = max((tmp_path / name).stat().st_ctime_ns for name in names)
    newest = put_aside(tmp_path, "000.sbb.again", b"x\n\nthe newest")
    while (tmp_path / newest).stat().st_ctime_ns == before:  # until the file system's clock ticks
        put_aside(tmp_path, "000.sbb.again", b"x\n\nthe newest")
    notes.read_aside([*names, newest])
    files, more = notes.listing()
    assert len(files) == MAX_LISTED
    assert more == {"refused": 8}
    assert "the newest" in {file.message for file in files}


def test_many_files_of_one_outcome_do_not_hide_those_of_another(
    tmp_path: Path, notes: InboxNotes, clock: Clock
) -> None:
    (tmp_path / "a.sbb").touch()
    notes.copying("a.sbb", 1, 2)
    for clock.now_s in range(1, MAX_LISTED + 3):
        (tmp_path / f"{clock.now_s:03}.txt").touch()
        notes.note(f"{clock.now_s:03}.txt", "ignored", "no bundle")
    files, more = notes.listing()
    assert (files[0].name, files[-1].name) == ("003.txt", "a.sbb")
    assert more == {"ignored": 2}


def test_files_that_are_gone_are_forgotten(tmp_path: Path, notes: InboxNotes) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).touch()
        notes.note(name, "ignored", "no bundle")
    notes.forget_all_but(["b.txt"])
    assert [file.name for file in notes.listing().files] == ["b.txt"]


def test_a_note_is_not_read_through_a_pipe_or_a_link(tmp_path: Path, notes: InboxNotes) -> None:
    os.mkfifo(tmp_path / "a.refused.txt")
    (tmp_path / "b.refused.txt").symlink_to("/dev/zero")
    files = read(notes, "a.refused", "b.refused")
    assert {file.message for file in files} == {"it was refused"}


def test_what_is_whole_is_not_said_to_be_short_any_more(tmp_path: Path, notes: InboxNotes) -> None:
    (tmp_path / "a.sbb").touch()
    notes.copying("a.sbb", 0, 2048)
    notes.copied("a.sbb")
    assert not notes.listing().files
    notes.wait("a.sbb", "there is no room for it")
    notes.copied("a.sbb")
    assert [file.message for file in notes.listing().files] == ["there is no room for it"]
