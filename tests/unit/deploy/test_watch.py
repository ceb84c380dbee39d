"""Scratch folders: made empty, and removed whatever their owner has made of them."""

from __future__ import annotations

from pathlib import Path

from superbrain.deploy.confinement import make_scratch, remove_scratch


def test_a_scratch_folder_begins_empty_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "scratch" / "7"
    make_scratch(folder)
    (folder / "left").touch()
    make_scratch(folder)
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_modes_and_links_do_not_keep_a_folder(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o500)
    folder = tmp_path / "scratch"
    make_scratch(folder)
    (folder / "closed" / "deeper").mkdir(parents=True)
    (folder / "closed" / "deeper" / "file").touch()
    (folder / "link").symlink_to(kept)
    (folder / "closed" / "deeper").chmod(0)
    (folder / "closed").chmod(0)
    remove_scratch(folder)
    assert not folder.exists()
    assert kept.stat().st_mode & 0o777 == 0o500
