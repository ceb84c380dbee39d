"""`superbrain trust revoke`: what it writes is read by the service, whoever types it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.bundle.trust_folder import read_trust_files
from superbrain.cli.main import main
from tests.support.bundles import make_trust_folder, sign_key

DIGEST = "ab" * 32


@pytest.fixture
def hardened() -> Iterator[None]:
    """Have root's umask of a hardened host."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_trust_folder(tmp_path / "trust", sign_key(tmp_path / "keys"))


def revoke(folder: Path) -> int:
    nobody = f"ipc://{folder}/nobody.sock"
    return main(["trust", "revoke", DIGEST, "--folder", str(folder), "--stop", "--control", nobody])


@pytest.mark.usefixtures("hardened")
def test_a_revocation_can_be_read_whatever_the_umask(folder: Path) -> None:
    assert revoke(folder) == 0
    assert stat.S_IMODE((folder / "revoked").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "revoked" / DIGEST).stat().st_mode) == 0o644
    assert read_trust_files(folder).stopped == {DIGEST}


def test_a_trust_folder_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert revoke(tmp_path / "mistyped") == 1
    assert "nothing is revoked" in capsys.readouterr().err
    assert not (tmp_path / "mistyped").exists()
