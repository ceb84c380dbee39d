"""A file is replaced in one step or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from superbrain.host.files import make_readable_folder, write_atomically


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    for content in (b"old", b"new"):
        write_atomically(path, content)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_through_a_link_in_its_place(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    path = tmp_path / "note.txt"
    for planted in (path, path.with_name(f".note.txt.{os.getpid()}")):
        planted.symlink_to(victim)
    write_atomically(path, b"new")
    assert (victim.read_bytes(), path.read_bytes()) == (b"mine", b"new")
    assert not path.is_symlink()


def test_what_must_last_is_on_the_disk_before_it_has_its_name_and_then_the_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(fd: int) -> None:
        done.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    def spy_replace(old: Path, new: Path) -> None:
        done.append(f"to {new.name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomically(tmp_path / "serving.json", b"all of it", durable=True)
    assert done == [".serving.json.part", "to serving.json", tmp_path.name]
    assert (tmp_path / "serving.json").read_bytes() == b"all of it"


def test_a_folder_that_is_made_can_be_listed_whatever_the_umask(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        make_readable_folder(kept / "above" / "folder", parents=True)
        make_readable_folder(kept)
    finally:
        os.umask(before)
    made = (kept / "above", kept / "above" / "folder")
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in made} == {0o755}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700


def test_no_folder_takes_the_place_of_a_file_or_lies_below_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        make_readable_folder(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        make_readable_folder(tmp_path / "nowhere" / "folder")
