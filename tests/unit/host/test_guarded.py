"""Files whose writers decide: what is read, and what is refused as others could have written it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from superbrain.host.guarded import NotGuarded, guarded_files, read_guarded
from tests.support.users import folder_for_all, nobody


def made(folder: Path, mode: int, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(b"content")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o444])
def test_a_file_that_only_its_owner_writes_is_read(tmp_path: Path, mode: int) -> None:
    assert read_guarded(made(tmp_path, mode), 100) == b"content"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(
        NotGuarded, match=r"writable for its owner only, found mode 0\d+.*chmod go-w"
    ):
        read_guarded(made(tmp_path, mode), 100)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_secret_that_others_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(NotGuarded, match="readable and writable for its owner only"):
        read_guarded(made(tmp_path, mode), 100, secret=True)


def test_a_credential_of_systemd_may_show_an_acl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_guarded(made(tmp_path, 0o440), 100, secret=True) == b"content"
    with pytest.raises(NotGuarded):
        read_guarded(made(tmp_path, 0o444, "other"), 100, secret=True)


def test_links_pipes_folders_and_long_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made(tmp_path, 0o600))
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "nothing"):
        with pytest.raises(NotGuarded):
            read_guarded(tmp_path / name, 100)
    with pytest.raises(NotGuarded, match="at most 3 bytes"):
        read_guarded(tmp_path / "file", 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path, 0o600)
    os.chown(path, 54321, -1)
    with pytest.raises(NotGuarded, match="found owner 54321"):
        read_guarded(path, 100)


def test_a_folder_is_listed_only_when_nobody_else_writes_it(tmp_path: Path) -> None:
    made(tmp_path, 0o644, "b.pub")
    made(tmp_path, 0o644, "a.pub")
    made(tmp_path, 0o644, ".c.pub")
    tmp_path.chmod(0o755)
    assert [path.name for path in guarded_files(tmp_path, "*.pub")] == ["a.pub", "b.pub"]
    tmp_path.chmod(0o775)
    with pytest.raises(NotGuarded):
        guarded_files(tmp_path, "*.pub")
    with pytest.raises(NotGuarded):
        guarded_files(tmp_path / "nowhere", "*.pub")
    with pytest.raises(NotGuarded, match="expected a folder"):
        guarded_files(tmp_path / "a.pub", "*.pub")


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one() -> None:
    with folder_for_all() as above:
        folder = above / "clients"
        folder.mkdir(mode=0)
        with nobody(), pytest.raises(NotGuarded, match="Let the service's user read it"):
            guarded_files(folder, "*.pub")
