"""`superbrain config`: what is shown, judged and explained, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from superbrain.app.config import Config
from superbrain.app.config_keys import default_file
from superbrain.cli.main import main


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "superbrain.toml"
    path.write_text("[deploy]\nprobation_s = 7\n")
    return path


def test_show_marks_what_is_not_the_default(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (marked,) = [line for line in lines if "# default" in line]
    assert marked.split() == ["deploy.probation_s", "=", "7.0", "#", "default:", "60.0"]


def test_show_as_json_is_a_table_of_keys(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deploy.probation_s"] == 7


def test_the_default_file_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--default"]) == 0
    assert capsys.readouterr().out == default_file(Config())


def test_check_says_what_a_good_file_sets(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", str(file)]) == 0
    assert capsys.readouterr().out == f"{file} is good; it sets deploy.probation_s\n"


def test_check_fails_with_the_key_that_was_meant(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[deploy]\nprobation = 7\n")
    assert main(["config", "check", "--config", str(file), "--json"]) == 1
    output = capsys.readouterr()
    assert "did you mean deploy.probation_s?" in json.loads(output.out)["error"]["message"]
    assert "superbrain config explain" in output.err


def test_explain_says_meaning_default_and_what_applies_a_change(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "explain", "deploy.probation_s", "--config", str(file)]) == 0
    meaning, default, applies = capsys.readouterr().out.splitlines()[1:]
    assert "watched" in meaning
    assert default == "  default 60.0, here 7.0"
    assert "restart" in applies


def test_explain_of_an_unknown_key_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "log.leves"]) == 1
    assert "did you mean log.level?" in capsys.readouterr().err
