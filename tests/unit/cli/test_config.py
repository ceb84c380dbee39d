"""`superbrain config`: what is shown, judged and explained, without a daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from superbrain.app.config import Config
from superbrain.app.config_keys import KEYS, default_file
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
    meaning, takes, default, applies = capsys.readouterr().out.splitlines()[1:]
    assert "watched" in meaning
    assert takes == "  takes 0 to 604800"
    assert default == "  default 60.0, here 7.0"
    assert "restart" in applies


def test_explain_of_an_unknown_key_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "log.leves"]) == 1
    assert "did you mean log.level?" in capsys.readouterr().err


def test_explain_of_a_section_explains_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "log"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "log.level"
    assert main(["config", "explain", "deploy", "--json"]) == 0
    keys = [fact["key"] for fact in json.loads(capsys.readouterr().out)]
    assert keys == [key for key in KEYS if key.startswith("deploy.")]


@pytest.mark.parametrize("section", Config.__struct_fields__)
def test_every_section_can_be_explained(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", section]) == 0
    assert f"{section}." in capsys.readouterr().out


def test_explain_as_json_says_what_a_number_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "budget.error_share", "--json"]) == 0
    fact = json.loads(capsys.readouterr().out)
    assert (fact["least"], fact["most"]) == (0, 1)
    assert main(["config", "explain", "log.level", "--json"]) == 0
    assert "least" not in json.loads(capsys.readouterr().out)


def test_explain_of_an_unknown_section_offers_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "explain", "deplyo"]) == 1
    assert "the key deplyo is unknown, did you mean deploy?" in capsys.readouterr().err


def test_explain_explains_what_is_wrong_in_a_file_that_cannot_be_used(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[deploy]\nprobation_s = -1\n")
    assert main(["config", "check", "--config", str(file)]) == 1
    assert "superbrain config explain deploy.probation_s" in capsys.readouterr().err
    line = ["config", "explain", "deploy.probation_s", "--config", str(file)]
    assert main(line) == 0
    assert "  default 60.0, here nothing that fits: superbrain config check" in (
        capsys.readouterr().out.splitlines()
    )
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] is None
