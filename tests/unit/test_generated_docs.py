"""What of docs/ is generated is what the code says now, and says it truly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from scripts import generated_docs
from scripts.generated_docs import GENERATED, Generated, part, wanted
from superbrain.domain.health import Health
from tests.support.reports import busy_health, sample_health

SCHEMA: dict[str, Any] = json.loads(generated_docs.health_schema())


@pytest.mark.parametrize("generated", GENERATED, ids=lambda generated: generated.path)
def test_a_generated_file_is_not_stale(generated: Generated) -> None:
    now, should = wanted(generated)
    assert now == should, f"{generated.path} is stale; type: scripts/docs"


def test_the_health_schema_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("report", [sample_health(), busy_health()], ids=["calm", "busy"])
def test_a_health_report_fits_its_schema(report: Health) -> None:
    jsonschema.validate(json.loads(msgspec.json.encode(report)), SCHEMA)


def test_a_report_that_lacks_its_status_does_not_fit_the_schema() -> None:
    report = json.loads(msgspec.json.encode(sample_health()))
    del report["status"]
    with pytest.raises(jsonschema.ValidationError, match="'status' is a required property"):
        jsonschema.validate(report, SCHEMA)


PAGE = "above\n<!-- generated: x -->\nold\n<!-- end of generated: x -->\nbelow\n"


def test_a_part_of_a_page_is_replaced_and_the_rest_stays() -> None:
    assert part(PAGE, "x", "new\n") == PAGE.replace("old", "new")


def test_a_part_that_is_up_to_date_stays_as_it_is() -> None:
    assert part(PAGE, "x", "old") == PAGE


@pytest.mark.parametrize("page", ["", PAGE + PAGE, PAGE.replace("end of ", "")])
def test_a_page_without_its_marks_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="once each, in this order"):
        part(page, "x", "new")


def test_check_fails_and_writes_nothing_when_a_file_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated_docs, "ROOT", tmp_path)
    monkeypatch.setattr(generated_docs, "GENERATED", (Generated("docs/a", lambda _now: "text"),))
    assert generated_docs.main(["--check"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_passes_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated_docs, "ROOT", tmp_path)
    monkeypatch.setattr(generated_docs, "GENERATED", (Generated("docs/a", lambda _now: "text"),))
    assert generated_docs.main([]) == 0
    assert generated_docs.main(["--check"]) == 0
