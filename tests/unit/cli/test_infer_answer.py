"""An answer as text, as JSON, as files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from superbrain.cli.infer import card, overview
from superbrain.cli.infer_answer import NotSaved, answer_json, answer_text, save_outputs
from superbrain.client import Result
from superbrain.wire.messages import InterfaceTensor, ModelMetadata, ModelSummary

RESULT = Result(
    "orientation",
    "1.2.0",
    {
        "label": np.array(b"upright", object),
        "scores": np.array([0.5, np.nan], "f4"),
        "crops": np.array([b"\xff\0", b"b"], object),
    },
)


def test_text_shows_names_types_and_values() -> None:
    assert answer_text(RESULT).splitlines() == [
        "orientation 1.2.0",
        "label  BYTES[]",
        "  upright",
        "scores  FP32[2]",
        "  [0.5, nan]",
        "crops  BYTES[2]",
        "  <2 bytes>",
        "  b",
    ]


def test_text_cannot_write_control_characters_to_a_terminal() -> None:
    result = Result("m", "1", {"label": np.array(b"\x1b[2J", object)})
    assert "\x1b" not in answer_text(result)


def test_long_outputs_are_shortened() -> None:
    long = Result("m", "1", {"x": np.zeros(100_000), "y": np.array([b"a"] * 1000, object)})
    text = answer_text(long)
    assert "..." in text
    assert "… and 936 more" in text
    assert len(text) < 1000


def test_json_is_strict_and_keeps_every_byte() -> None:
    answer = json.loads(answer_json(RESULT), parse_constant=pytest.fail)
    assert answer["model_version"] == "1.2.0"
    label, scores, crops = answer["outputs"]
    assert label == {"name": "label", "datatype": "BYTES", "shape": [], "data": ["upright"]}
    assert scores["data"] == [0.5, None]
    assert crops["data"] == [{"base64": "/wA="}, "b"]


def test_outputs_are_saved_each_to_its_file(tmp_path: Path) -> None:
    saved = save_outputs(RESULT, tmp_path / "new")
    assert [path.name for path in saved] == [
        "label.bin",
        "scores.npy",
        "crops-0.bin",
        "crops-1.bin",
    ]
    assert saved[0].read_bytes() == b"upright"
    assert np.load(saved[1]).dtype == np.float32
    assert saved[2].read_bytes() == b"\xff\0"


@pytest.mark.parametrize("name", ["../escape", "..", ""])
def test_an_output_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotSaved, match="name can name a file"):
        save_outputs(Result("m", "1", {name: np.zeros(1)}), tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotSaved, match="expected to write outputs into"):
        save_outputs(RESULT, tmp_path / "file")


def test_the_model_list_is_an_aligned_table() -> None:
    models = [ModelSummary("ocr", "3.0.1", ready=True), ModelSummary("x", "1", False, "proving")]
    assert overview(models).splitlines() == [
        "MODEL  VERSION  READY  REASON",
        "ocr    3.0.1    yes",
        "x      1        no     proving",
    ]
    assert "inbox" in overview([])


def test_a_model_is_shown_with_its_tensors() -> None:
    x, y = InterfaceTensor("x", "FP32", [-1, 3], "pixels"), InterfaceTensor("y", "BYTES", [])
    metadata = ModelMetadata("m", ["1"], "onnx", [x], [y], "Finds things.")
    assert card(metadata).splitlines() == [
        "m 1 (onnx)",
        "Finds things.",
        "",
        "        TENSOR  TYPE        DESCRIPTION",
        "input   x       FP32[-1,3]  pixels",
        "output  y       BYTES[]",
    ]
