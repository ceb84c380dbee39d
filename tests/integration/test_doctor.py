"""`superbrain doctor` as another user: what is private is said calmly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import make_trust_folder, sign_key

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users"),
]

STRANGER = 54321  # a user id that nobody has
SOURCE = Path(__file__).resolve().parents[2] / "daemon"
# Nothing is probed: a stranger may not be able to start this Python.
ASK = """
import concurrent.futures.thread, os, sys  # what a stranger may not be able to read
root, user, source = sys.argv[1:]
sys.path.insert(0, source)
from superbrain.cli import doctor
from superbrain.cli.main import main
from superbrain.domain.probe import Cuda, Engines, GpuFigures, Library, OnnxRuntimeBuild
none, there = Library(missing=True), OnnxRuntimeBuild("1")
engines = Engines({}, Cuda(False), none, none, there, {}, {"onnxruntime:cpu": ""})
doctor.probe_engines = lambda timeout_s, **_: engines
doctor.ask_child = lambda *_, **__: GpuFigures([])
os.setgroups([])
os.setresgid(*[int(user)] * 3)
os.setresuid(*[int(user)] * 3)
sys.exit(main(["doctor", "--root", root, "--json"]))
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a folder that everybody can reach."""
    with tempfile.TemporaryDirectory(prefix="sb-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_an_ordinary_user_is_told_calmly_what_is_not_for_its_eyes(
    root: Path, tmp_path: Path
) -> None:
    for name in ("state/store", "inbox", "run"):
        (root / name).mkdir(parents=True)
    make_trust_folder(root / "trust", sign_key(tmp_path / "keys"))
    for name in ("state", "inbox", "trust"):
        (root / name).chmod(0o700)
    command = [sys.executable, "-c", ASK, str(root), str(STRANGER), str(SOURCE)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.stderr == ""
    diagnosis = json.loads(ended.stdout)
    found = {one["id"]: one for part in diagnosis["sections"] for one in part["findings"]}
    assert diagnosis["user"] == f"user id {STRANGER}"
    for name in ("store", "trust"):
        assert found[name]["verdict"] == "note", found[name]
        assert "not for this user to see" in found[name]["found"]
    assert ended.returncode == 0, [one for one in found.values() if one["verdict"] == "problem"]
