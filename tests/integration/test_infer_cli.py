"""`superbrain infer` and `superbrain models` against a fake server, as typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from superbrain.cli.main import main
from superbrain.client.fake import FakeModel, FakeServer

pytestmark = pytest.mark.integration


def classify(request: dict[str, Any]) -> dict[str, Any]:
    sure = request["threshold"] < 1
    return {"label": "upright" if sure else "unsure", "size": len(request["image"])}


INPUTS = {"image": "BYTES[]", "threshold": "FP32[]"}
OUTPUTS = {"label": "BYTES[]", "size": "INT64[]"}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with FakeServer({"orientation": FakeModel(classify, INPUTS, OUTPUTS)}) as server:
        monkeypatch.setenv("SUPERBRAIN_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def page(tmp_path: Path) -> str:
    (tmp_path / "page.jpg").write_bytes(b"jpeg")
    return f"image={tmp_path}/page.jpg"


def test_an_answer_is_shown(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "orientation", "-i", page, "-i", "threshold=0.5"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["orientation 1.0.0", "label  BYTES[]", "  upright", "size  INT64[]", "  4"]


def test_one_output_may_be_asked_for_as_json(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["infer", "orientation", "-i", page, "-i", "threshold=2", "-o", "label", "--json"]
    assert main(words) == 0
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert [(output["name"], output["data"]) for output in outputs] == [("label", ["unsure"])]


def test_outputs_are_saved(page: str, tmp_path: Path) -> None:
    words = ["infer", "orientation", "-i", page, "-i", "threshold=2", "--save", f"{tmp_path}/out"]
    assert main(words) == 0
    assert (tmp_path / "out/label.bin").read_bytes() == b"unsure"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["infer", "nobody"], 1, "found 'nobody'"),
        (["infer", "orientation"], 1, "expected input 'image'"),
        (["infer", "orientation", "-i", "image"], 2, "expected NAME=VALUE"),
        (["models", "--endpoint", "ipc:///nowhere/s"], 1, "no superbrain gateway answers"),
        (["models", "--endpoint", "nowhere"], 1, "expected an endpoint like"),
    ],
)
def test_failures_have_a_sentence_and_an_exit_code(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert message in capsys.readouterr().err


def test_models_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "orientation  1.0.0    yes" in capsys.readouterr().out
    assert main(["models", "orientation"]) == 0
    assert "input   threshold  FP32[]" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ready"] is True
