"""Classification: activations and labels. Segmentation: every form of scores, and its own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.bundle_code import Untyped, load_template
from tests.support.graphs import tensor
from tests.unit.templates.fakes import FakeBundle, graph_of

Array = np.ndarray[Any, np.dtype[Any]]
LOGITS = np.array([[1.0, 3.0, 2.0]], np.float32)


def classifier(folder: Path, **constants: object) -> Untyped:
    code = load_template(folder, "classification/pipeline.py", **constants)
    graph = graph_of([tensor("input", "FP32", 1, 3, 8, 8)], [tensor("output", "FP32", 1, 3)])
    return code.Pipeline(FakeBundle(graph, {"labels.txt": "a\nb\nc\n"}))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("none", LOGITS[0]),
        ("softmax", np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum()),
        ("sigmoid", 1 / (1 + np.exp(-LOGITS[0]))),
    ],
)
def test_confidences_are_what_the_activation_makes_of_the_output(
    tmp_path: Path, activation: str, expected: Array
) -> None:
    answer = classifier(tmp_path, ACTIVATION=activation, TOP=2).postprocess({"output": LOGITS}, {})
    assert answer["labels"] == ["b", "c"]
    assert np.allclose(answer["confidences"], expected[[1, 2]])


def test_large_logits_do_not_overflow(tmp_path: Path) -> None:
    for activation in ("softmax", "sigmoid"):
        outputs = {"output": np.array([[-1e4, 1e4, 0]], np.float32)}
        answer = classifier(tmp_path, ACTIVATION=activation).postprocess(outputs, {})
        assert answer["confidences"][0] == 1
        assert answer["labels"][0] == "b"


def test_a_label_too_few_is_refused_when_the_bundle_loads(tmp_path: Path) -> None:
    code = load_template(tmp_path, "classification/pipeline.py")
    graph = graph_of([tensor("input", "FP32", 1, 3, 8, 8)], [tensor("output", "FP32", 1, 3)])
    with pytest.raises(ValueError, match=r"assets/labels.txt: expected 3 labels, found 2"):
        code.Pipeline(FakeBundle(graph, {"labels.txt": "a\nb\n"}))


# --- segmentation -------------------------------------------------------------------------------


def segmented(
    folder: Path, picture: Array, output: Array, labels: str, **constants: object
) -> Untyped:
    """What the pipeline answers when the graph of 8 by 8 pixels gives this output."""
    code = load_template(folder, "segmentation/pipeline.py", **constants)
    datatype = "FP32" if output.dtype == np.float32 else "INT64"
    graph = graph_of(
        [tensor("input", "FP32", 1, 3, 8, 8)], [tensor("output", datatype, *output.shape)]
    )
    pipeline = code.Pipeline(FakeBundle(graph, {"labels.txt": labels}))
    return pipeline.run({"image": picture}, {"model": lambda inputs: {"output": output}})


WIDE = np.zeros((4, 16, 3), np.uint8)  # scaled to 2 by 8 in the frame, padding below
HALF = np.zeros((1, 8, 8), np.float32)
HALF[:, :, 4:] = 1
RIGHT = np.repeat([[0] * 8 + [1] * 8], 4, axis=0)


def test_the_largest_score_wins_with_classes_in_front_or_behind(tmp_path: Path) -> None:
    scores = np.stack([0.5 - HALF, HALF - 0.5, HALF * 0 - 9], axis=1)
    for axis, output in ((1, scores), (3, scores.transpose(0, 2, 3, 1))):
        answer = segmented(tmp_path, WIDE, output, "x\ny\nz\n", CLASS_AXIS=axis)
        assert np.array_equal(answer["mask"], RIGHT)
        assert answer["mask"].dtype == np.uint8
        assert answer["labels"] == ["x", "y"]
        assert answer["shares"].tolist() == [0.5, 0.5]


def test_binary_scores_are_compared_with_the_threshold(tmp_path: Path) -> None:
    output = HALF[:, None] * 0.8
    answer = segmented(tmp_path, WIDE, output, "no\nyes\n", FORM="binary", THRESHOLD=0.4)
    assert np.array_equal(answer["mask"], RIGHT)


def test_classes_are_taken_as_they_are(tmp_path: Path) -> None:
    answer = segmented(tmp_path, WIDE, HALF.astype(np.int64) * 2, "x\ny\nz\n", FORM="classes")
    assert np.array_equal(answer["mask"], RIGHT * 2)
    assert answer["labels"] == ["x", "z"]


def test_padding_is_no_part_of_the_mask(tmp_path: Path) -> None:
    """Only rows 0 and 1 of the frame are picture."""
    below = np.zeros((1, 1, 8, 8), np.float32)
    below[:, :, 2:] = 1
    answer = segmented(tmp_path, WIDE, below, "no\nyes\n", FORM="binary", THRESHOLD=0.4)
    assert not answer["mask"].any()
