"""`superbrain health` over files: the verdict, its exit code, and when there is none to trust."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import msgspec
import pytest

from superbrain.cli.main import main
from superbrain.domain.health import Health, Problem, Severity
from tests.support.reports import OCR, ORIENTATION, busy_health, sample_health


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "health.json"


def write(file: Path, health: Health, *, age_s: float = 1.0) -> Path:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(health, at=at)))
    return file


def checked(file: Path, *options: str) -> int:
    return main(["health", "--file", str(file), *options])


STATUSES: dict[Severity, tuple[int, str]] = {
    "ok": (0, "OK - "),
    "warning": (1, "WARNING - "),
    "critical": (2, "CRITICAL - "),
}


@pytest.mark.parametrize(("status", "expected"), STATUSES.items())
def test_the_status_is_the_first_word_and_the_exit_code(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    status: Severity,
    expected: tuple[int, str],
) -> None:
    code, word = expected
    assert checked(write(file, sample_health(status=status))) == code
    assert capsys.readouterr().out.startswith(word)


def test_the_summary_counts_models_and_carries_figures(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(write(file, sample_health(models=[ORIENTATION, OCR])))
    summary, figures = capsys.readouterr().out.strip().split(" | ")
    assert summary == "OK - 2 models ready"
    assert figures.split()[:4] == ["models=2", "ready=2", "requests=1332431c", "errors=3c"]


def test_models_that_are_still_starting_are_counted_apart(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    starting = msgspec.structs.replace(OCR, state="starting")
    checked(write(file, sample_health(models=[ORIENTATION, starting])))
    assert capsys.readouterr().out.startswith("OK - 1 of 2 models ready |")


def test_no_models_is_ok_and_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(write(file, sample_health(models=[]))) == 0
    assert capsys.readouterr().out.startswith("OK - no models are installed |")


def test_the_worst_problem_is_the_summary_and_all_follow_with_their_mends(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(write(file, busy_health()))
    summary, *problems = capsys.readouterr().out.splitlines()
    assert summary.startswith("CRITICAL - model speech-detection: its worker ended 5 times")
    assert "(and 1 more)" in summary
    assert problems[0].endswith("-> superbrain rollback speech-detection")
    assert problems[1].startswith("warning: inbox speech-0.9.0.sbb: signed by key")


def test_a_problem_cannot_break_the_one_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem("warning", "model ocr", "first\nsecond | third")
    checked(write(file, sample_health(status="warning", problems=[problem])))
    summary = capsys.readouterr().out.splitlines()[0]
    assert summary.startswith("WARNING - model ocr: first second / third |")


def test_json_is_the_report_itself(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(write(file, busy_health()), "--json") == 2
    assert json.loads(capsys.readouterr().out) == json.loads(file.read_bytes())


def test_a_stale_report_is_unknown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(write(file, sample_health(), age_s=61)) == 3
    out = capsys.readouterr().out
    assert out.startswith("UNKNOWN - the report is 1 min 1 s old, expected at most 1 min")


def test_the_age_that_is_allowed_can_be_set(file: Path) -> None:
    assert checked(write(file, sample_health(), age_s=61), "--max-age", "300") == 0


def test_a_report_from_the_future_is_unknown(file: Path) -> None:
    assert checked(write(file, sample_health(), age_s=-600)) == 3


def test_a_report_without_a_time_zone_is_unknown(file: Path) -> None:
    report = json.loads(msgspec.json.encode(sample_health()))
    report["at"] = "2026-03-02T12:00:00"
    file.write_text(json.dumps(report))
    assert checked(file) == 3


UNREADABLE = {"empty": b"", "cut": b'{"at": "2026-', "another format": b'{"status": "fine"}'}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_file_that_is_no_report_is_unknown(
    file: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    file.write_bytes(content)
    assert checked(file) == 3
    assert capsys.readouterr().out.startswith(f"UNKNOWN - {file} is no health report")


def test_a_missing_file_is_unknown_and_said_with_its_name(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(file) == 3
    assert f"{file} cannot be read: No such file" in capsys.readouterr().out


def test_a_program_gets_the_missing_report_as_json(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(file, "--json") == 3
    assert set(json.loads(capsys.readouterr().out)["error"]) == {"message", "mend"}
