"""`superbrain backup` of a host under load, `superbrain restore` elsewhere, with real daemons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.domain import operations as op
from tests.support.appliance import Appliance
from tests.support.load import Load
from tests.support.releases import answer, go_live, release

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def type_in(appliance: Appliance, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command about this appliance's folders."""
    command = [sys.executable, "-m", "superbrain.cli.main", *words, *appliance.arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Appliance]:
    """A host on which nothing is installed yet."""
    (tmp_path / "other").mkdir()
    with Appliance(tmp_path / "other", start=False) as appliance:
        for found in appliance.root.iterdir():
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        yield appliance


def test_a_backup_taken_while_versions_change_serves_elsewhere(
    tmp_path: Path, another: Appliance
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        third = release(appliance, 3)
        with Load(appliance.client, 2) as load:
            appliance.drop(release(appliance, 2))
            early = type_in(appliance, "backup", "--output", str(tmp_path / "early"), "--json")
            appliance.wait_live("adder", "2.0.0")
            late = type_in(appliance, "backup", "--output", str(tmp_path / "late"))
        load.assert_flawless()
        assert early.returncode == 0, early.stderr
        assert json.loads(early.stdout)["models"]["adder"] in {"1.0.0", "2.0.0"}
        assert late.returncode == 0, late.stderr
        assert "adder 2.0.0; 2 bundles" in late.stdout
        refused = type_in(appliance, "restore", str(tmp_path / "late"), "--replace")
        assert refused.returncode == 1
        assert "another superbraind already uses" in refused.stderr
        steps = appliance.history("adder")
        appliance.drop(third)
        appliance.wait_live("adder", "3.0.0")

        check = type_in(another, "restore", str(tmp_path / "late"), "--dry-run")
        assert check.returncode == 0, check.stderr
        assert not list(another.root.iterdir())
        done = type_in(another, "restore", str(tmp_path / "late"))
        assert done.returncode == 0, done.stderr
        assert f"now: superbraind --root {another.root}" in done.stdout
        another.start()
        another.wait_live("adder", "2.0.0")
        assert answer(another) == 2.0
        assert another.history("adder")[: len(steps)] == steps
        verdict = another.ask(op.VerifyAudit(), op.AuditVerdict)
        assert verdict.faults == []
        trail = another.ask(op.GetAudit(100), op.AuditReply).entries
        (entry,) = [entry for entry in trail if entry.action == "restored"]
        assert entry.peer is not None
        assert entry.peer.uid == os.getuid()
        # it goes on from there: back to the version before, and on to the next
        another.ask(op.Rollback("adder"), op.Outcome)
        another.wait_live("adder", "1.0.0")
        another.drop(third)
        another.wait_live("adder", "3.0.0")

        # the first host is ahead by now, and does not go back in silence
        appliance.stop()
        older = type_in(appliance, "restore", str(tmp_path / "late"), "--replace", "--json")
        error = json.loads(older.stdout)["error"]
        assert (older.returncode, error["code"]) == (1, "RESTORE_OLDER")


def test_a_host_restored_without_bundles_serves_when_they_are_dropped_again(
    tmp_path: Path, another: Appliance
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        small = ("--output", str(tmp_path / "small"), "--without-bundles")
        assert type_in(appliance, "backup", *small).returncode == 0
        bundle = tmp_path / "adder-1.0.0.sbb"
        done = type_in(another, "restore", str(tmp_path / "small"))
        assert "serves nothing until they are dropped again" in done.stdout, done.stderr
        another.start()
        another.drop(bundle)
        another.wait_live("adder", "1.0.0")
        assert answer(another) == 1.0


def test_a_daemon_does_not_start_from_half_a_restore(another: Appliance) -> None:
    (another.root / "superbrain.toml").write_text("")
    (another.root / "state.restore").write_text("a plan")
    ended = another.start_another()
    assert ended.returncode == 1
    assert "a restore was begun and is not finished" in ended.stderr
    assert not (another.root / "state").exists()
