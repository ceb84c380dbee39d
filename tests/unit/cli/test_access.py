"""`superbrain access`: pairs, and the folder of those who may connect."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from superbrain.cli.main import main
from superbrain.client import CurveKeys
from tests.support.faulty_disk import Fault, failing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "clients"


def generate(tmp_path: Path, name: str) -> Path:
    assert main(["access", "generate", name, "--directory", str(tmp_path)]) == 0
    return tmp_path / f"{name}.pub"


def test_a_pair_is_made_once_and_its_secret_is_the_owners_alone(tmp_path: Path) -> None:
    public = generate(tmp_path, "camera")
    secret = tmp_path / "camera.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "secret-key" not in public.read_text()
    keys = CurveKeys.load(public, secret)
    assert keys.server == keys.public
    before = secret.read_text()
    assert main(["access", "generate", "camera", "--directory", str(tmp_path)]) == 1
    assert secret.read_text() == before


@pytest.mark.parametrize("number", range(1, 7))
def test_a_full_disk_is_told_and_no_half_of_a_pair_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    words = ["access", "generate", "camera", "--directory", str(tmp_path)]
    with failing() as operations:
        operations.arm(Fault("ENOSPC", number))
        assert main(words) == 1
    error = capsys.readouterr().err
    assert "No space left on device\n  → Free some space on that disk\n" in error
    assert list(tmp_path.iterdir()) == []
    assert main(words) == 0


def test_allow_list_and_deny(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("camera", "gate"):
        public = str(generate(tmp_path, name))
        assert main(["access", "allow", public, "--folder", str(folder)]) == 0
    capsys.readouterr()
    assert main(["access", "list", "--json", "--folder", str(folder)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [client["name"] for client in listed] == ["camera", "gate"]
    assert main(["access", "list", "--folder", str(folder)]) == 0
    head, first, _ = capsys.readouterr().out.splitlines()
    assert head.index("KEY") == first.index(listed[0]["key"])
    assert main(["access", "deny", "gate", "--folder", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["camera.pub"]


def test_the_service_can_read_who_is_allowed_whatever_the_umask(
    tmp_path: Path, folder: Path
) -> None:
    before = os.umask(0o077)
    try:
        public = generate(tmp_path, "camera")
        assert main(["access", "allow", str(public), "--folder", str(folder / "below")]) == 0
    finally:
        os.umask(before)
    for place in (folder, folder / "below"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o755
    for place in (public, folder / "below" / "camera.pub"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o644


def test_a_secret_key_that_is_allowed_leaves_only_its_public_half(
    tmp_path: Path, folder: Path
) -> None:
    generate(tmp_path, "camera")
    secret = str(tmp_path / "camera.key")
    assert main(["access", "allow", secret, "--name", "camera", "--folder", str(folder)]) == 0
    assert "secret-key" not in (folder / "camera.pub").read_text()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["deny", "nobody"], "expected one of those in"),
        (["deny", "../camera"], "expected a plain name"),
        (["allow", "nothing.pub"], "expected to read a CURVE certificate"),
    ],
)
def test_what_cannot_be_done_is_said(
    folder: Path, words: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["access", *words, "--folder", str(folder)]) == 1
    assert found in capsys.readouterr().err


def test_the_same_key_is_not_allowed_twice(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = str(generate(tmp_path, "camera"))
    assert main(["access", "allow", public, "--folder", str(folder)]) == 0
    assert main(["access", "allow", public, "--name", "x", "--folder", str(folder)]) == 1
    assert "found that of 'camera'" in capsys.readouterr().err


def test_an_empty_folder_says_that_nobody_may_connect(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["access", "list", "--folder", str(folder)]) == 0
    assert "Nobody may connect by TCP" in capsys.readouterr().out


def test_keys_for_a_question_come_in_twos(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--endpoint", "tcp://127.0.0.1:1", "--curve-key", "x.key"]) == 1
    assert "expected --curve-server and --curve-key together" in capsys.readouterr().err
