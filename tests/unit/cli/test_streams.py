"""What a command found out is told by its exit code, wherever standard output leads."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from superbrain.domain.health import Health, Problem, Severity
from tests.support.reports import sample_health

CODES: dict[Severity, int] = {"ok": 0, "warning": 1, "critical": 2}
ELSEWHERE = {"closed": ">&-", "full": ">/dev/full", "nothing open": "<&- >&- 2>&-"}
TOLD_BY = ["", "--json"]


def report(folder: Path, health: Health) -> Path:
    file = folder / "health.json"
    fresh = msgspec.structs.replace(health, at=dt.datetime.now(dt.UTC))
    file.write_bytes(msgspec.json.encode(fresh))
    return file


def superbrain(
    words: list[str], redirection: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command line as a shell does."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
    command += [sys.executable, "-m", "superbrain.cli.main", *words]
    usual = {"SUPERBRAIN_CONTROL": "ipc:///nowhere/control.sock", "PYTHONUNBUFFERED": ""}
    variables = os.environ | usual | environment
    return subprocess.run(command, capture_output=True, check=False, env=variables)


@pytest.mark.parametrize("redirection", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize(("status", "code"), CODES.items())
@pytest.mark.parametrize("told_by", TOLD_BY)
def test_health_keeps_its_exit_code_where_nobody_can_read_it(
    tmp_path: Path, redirection: str, status: Severity, code: int, told_by: str
) -> None:
    file = report(tmp_path, sample_health(status=status))
    ended = superbrain(["health", "--file", str(file), *told_by.split()], redirection)
    assert (ended.returncode, ended.stderr) == (code, b"")


@pytest.mark.parametrize("redirection", ELSEWHERE.values(), ids=ELSEWHERE)
def test_health_without_a_report_keeps_its_exit_code_too(tmp_path: Path, redirection: str) -> None:
    missing = ["health", "--file", str(tmp_path / "none.json")]
    assert superbrain(missing, redirection).returncode == 3
    assert superbrain(["health"], redirection).returncode == 2


def test_health_keeps_its_exit_code_when_its_reader_has_gone(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    file = report(tmp_path, sample_health(status="warning"))
    command = [sys.executable, "-m", "superbrain.cli.main", "health", "--file", str(file)]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_an_error_is_told_though_standard_output_is_closed() -> None:
    ended = superbrain(["status"], ">&-")
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"error: superbraind is not running")


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"], ["metrics", "--help"]])
def test_what_cannot_be_written_is_an_error_and_no_traceback(words: list[str]) -> None:
    ended = superbrain(words, ">/dev/full")
    assert (ended.returncode, ended.stderr.decode().splitlines()) == (
        1,
        [
            "error: standard output: expected to write there, found: No space left on device",
            "  → Free some space on that disk",
        ],
    )


def test_what_cannot_be_written_at_once_is_an_error_too() -> None:
    ended = superbrain(["--help"], ">/dev/full", PYTHONUNBUFFERED="1")
    assert (ended.returncode, ended.stderr.count(b"No space left on device")) == (1, 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_as_json_that_cannot_be_written_is_told_on_standard_error(unbuffered: str) -> None:
    ended = superbrain(["status", "--json"], ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (ended.returncode, ended.stderr.count(b"error: ")) == (1, 1)
    assert ended.stderr.startswith(b"error: superbraind is not running")


def test_an_error_goes_nowhere_when_standard_error_is_full() -> None:
    assert superbrain(["status"], "2>/dev/full").returncode == 1


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_character_that_cannot_be_written_is_a_question_mark(
    tmp_path: Path, encoding: str
) -> None:
    problem = Problem("warning", "model ocr", "a very long sentence…")
    file = report(tmp_path, sample_health(status="warning", problems=[problem]))
    words = ["health", "--file", str(file)]
    ended = superbrain(words, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert ended.stdout.startswith(b"WARNING - model ocr: a very long sentence? |")


def test_a_name_that_is_no_utf_8_is_written_as_it_came(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.json")
    ended = superbrain(["health", "--file", name], PYTHONIOENCODING="utf-8:surrogateescape")
    assert ended.returncode == 3
    assert b"caf\xe9.json" in ended.stdout
