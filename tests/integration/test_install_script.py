"""install.sh before it touches anything: what it refuses, what it would do.

What it does to a host is held by scripts/acceptance.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration


def install(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "install.sh"), *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHON": sys.executable},
        check=False,
        timeout=60,
    )


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Path:
    """A wheelhouse as far as it is looked at before anything is installed."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "wheelhouse.txt").write_text(f"cpu {version} {platform.machine()} 0\n")
    digest = hashlib.sha256((folder / "wheelhouse.txt").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  ./wheelhouse.txt\n")
    return folder


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    tmp_path: Path, wheelhouse: Path
) -> None:
    prefix = tmp_path / "prefix"
    result = install("--dry-run", "--wheelhouse", wheelhouse, "--prefix", prefix)
    assert result.returncode == 0, result.stderr
    assert f"Would install superbrain (cpu, Python {sys.version_info.major}." in result.stdout
    assert list(prefix.rglob("*")) == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--frobnicate"], 2, "'--frobnicate' is no option"),
        (["--purge"], 2, "--purge goes with --uninstall"),
        (["--trust"], 2, "expected a value after --trust"),
        (["--wheelhouse", "/nowhere"], 1, "no complete wheelhouse"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    result = install(*arguments, "--prefix", tmp_path) if status == 1 else install(*arguments)
    assert result.returncode == status
    assert said in result.stderr
    assert "→" in result.stderr


def test_a_damaged_wheelhouse_is_refused(tmp_path: Path, wheelhouse: Path) -> None:
    sums = wheelhouse / "SHA256SUMS"
    sums.write_text("0" * 64 + "  ./wheelhouse.txt\n")
    result = install("--wheelhouse", wheelhouse, "--prefix", tmp_path / "prefix")
    assert result.returncode == 1
    assert "the wheelhouse is damaged: ./wheelhouse.txt: FAILED" in result.stderr


def test_a_wheelhouse_for_another_python_is_refused(tmp_path: Path, wheelhouse: Path) -> None:
    (wheelhouse / "wheelhouse.txt").write_text(f"cpu 3.99 {platform.machine()} 0\n")
    result = install("--wheelhouse", wheelhouse, "--prefix", tmp_path / "prefix")
    assert result.returncode == 1
    assert "for Python 3.99" in result.stderr


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path, wheelhouse: Path) -> None:
    key = tmp_path / "author.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    result = install("--wheelhouse", wheelhouse, "--prefix", tmp_path / "prefix", "--trust", key)
    assert result.returncode == 1
    assert "is no public key" in result.stderr


def test_removing_asks_first(tmp_path: Path) -> None:
    kept = tmp_path / "var/lib/superbrain/state"
    kept.mkdir(parents=True)
    refused = install("--uninstall", "--purge", "--prefix", tmp_path)
    assert refused.returncode == 1
    assert "add --yes" in refused.stderr
    assert install("--uninstall", "--yes", "--prefix", tmp_path).returncode == 0
    assert kept.exists()
    assert install("--uninstall", "--purge", "--yes", "--prefix", tmp_path).returncode == 0
    assert not kept.exists()


def test_what_uv_fails_at_pip_tries_again_and_then_does_alone(tmp_path: Path) -> None:
    wanted = ["/^quietly()/,/^}/p", "/^install_packages()/,/^}/p"]
    functions = subprocess.run(
        ["sed", "-n", ";".join(wanted), str(ROOT / "install.sh")],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout
    asked = tmp_path / "asked"
    tools = f"""
set -euo pipefail
log={tmp_path}/log what="the packages could not be installed"
uv() {{ echo "uv $*" >>{asked}; [[ $* != *second* ]]; }}
pip() {{ echo "pip $*" >>{asked}; }}
by_uv=(uv) by_pip=(pip)
"""
    calls = "install_packages -r first; install_packages -r second; install_packages -r third"
    subprocess.run(["bash", "-c", tools + functions + calls], check=True, timeout=20)
    assert asked.read_text().splitlines() == [
        "uv -r first",
        "uv -r second",
        "pip -r second",
        "pip -r third",
    ]
