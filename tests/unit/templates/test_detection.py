"""Detection: every form of answer, and that overlapping boxes of one class are suppressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.support.bundle_code import load_template
from tests.support.graphs import tensor
from tests.unit.templates.fakes import FakeBundle, graph_of

Array = np.ndarray[Any, np.dtype[Any]]
FILE = "detection/pipeline.py"


def overlap(one: Array, other: Array) -> float:
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[2:], other[2:])
    both = max(right - left, 0) * max(bottom - top, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(both / (sum(areas) - both))


def suppressed_plainly(boxes: Array, scores: Array, classes: Array, most: float) -> list[int]:
    """Greedy suppression by its definition; boxes are sorted by score."""
    kept: list[int] = []
    for index in range(len(scores)):
        rivals = [other for other in kept if classes[other] == classes[index]]
        if all(overlap(boxes[index], boxes[other]) <= most for other in rivals):
            kept.append(index)
    return kept


@pytest.mark.parametrize("batched", [True, False])
def test_suppression_is_greedy_and_knows_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batched: bool
) -> None:
    code = load_template(tmp_path, FILE)
    if not batched:  # as in older releases of OpenCV
        monkeypatch.delattr(cv2.dnn, "NMSBoxesBatched", raising=False)
    random = np.random.default_rng(3)
    corners = random.uniform(-20, 200, (200, 2))
    boxes = np.concatenate([corners, corners + random.uniform(20, 60, (200, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    scores = np.sort(random.uniform(0.3, 1, 200).astype(np.float32))[::-1]
    classes = random.integers(0, 3, 200)
    kept = code.suppressed(boxes, scores, classes)
    assert kept.tolist() == suppressed_plainly(boxes, scores, classes, 0.45)


def test_nothing_found_is_no_box(tmp_path: Path) -> None:
    code = load_template(tmp_path, FILE)
    nothing = np.zeros((0, 4), np.float32)
    assert len(code.suppressed(nothing, np.zeros(0), np.zeros(0, np.int64))) == 0


def test_an_overlap_of_one_suppresses_none(tmp_path: Path) -> None:
    code = load_template(tmp_path, FILE, MAX_OVERLAP=1.0)
    boxes = np.array([[0, 0, 9, 9]] * 3, np.float32)
    assert code.suppressed(boxes, np.ones(3), np.zeros(3, np.int64)).tolist() == [0, 1, 2]


GRID = np.array(
    [[10, 10, 4, 4, 0.9, 0.1, 0.8], [20, 20, 4, 4, 0.5, 0.3, 0.2], [30, 30, 4, 4, 1, 0.6, 0.1]],
    np.float32,
)  # x, y, width, height, objectness, two classes


@pytest.mark.parametrize("axis", [1, 2])
def test_a_grid_is_read_along_either_axis(tmp_path: Path, axis: int) -> None:
    code = load_template(tmp_path, FILE, CHANNELS_AXIS=axis)
    plain = np.delete(GRID, 4, axis=1)
    boxes, scores, classes = code.candidates({"output0": (plain.T if axis == 1 else plain)[None]})
    assert scores.tolist() == np.array([0.8, 0.6, 0.3], np.float32).tolist()
    assert classes.tolist() == [1, 0, 0]
    assert boxes[:, 0].tolist() == [10, 30, 20]


def test_objectness_multiplies_the_scores(tmp_path: Path) -> None:
    code = load_template(tmp_path, FILE, CHANNELS_AXIS=2, OBJECTNESS=True)
    _, scores, _ = code.candidates({"output0": GRID[None]})
    assert scores == pytest.approx([0.72, 0.6])  # 0.15 is below MIN_SCORE


@pytest.mark.parametrize(
    ("form", "normalised", "box", "expected"),
    [
        ("cxcywh", False, [10, 20, 4, 8], [8, 16, 12, 24]),
        ("xyxy", False, [8, 16, 12, 24], [8, 16, 12, 24]),
        ("xyxy", True, [0.25, 0.5, 0.5, 1], [16, 16, 32, 32]),
        ("yxyx", True, [0.5, 0.25, 1, 0.5], [16, 16, 32, 32]),
    ],
)
def test_boxes_become_corners_in_pixels_of_the_frame(
    tmp_path: Path, form: str, normalised: bool, box: list[float], expected: list[float]
) -> None:
    code = load_template(tmp_path, FILE, BOX=form, NORMALISED=normalised)
    assert code.corners(np.array([box], np.float32), 32, 64).tolist() == [expected]


LISTS = {"FORM": "lists", "BOXES": "boxes", "SCORES": "scores", "CLASSES": "labels", "BOX": "xyxy"}


def test_lists_are_answered_best_first_on_the_picture(tmp_path: Path) -> None:
    code = load_template(tmp_path, FILE, **LISTS)
    graph = graph_of([tensor("images", "FP32", 1, 3, 64, 64)], [])
    pipeline = code.Pipeline(FakeBundle(graph, {"labels.txt": "cat\ndog\n"}))

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        assert inputs["images"].shape == (1, 3, 64, 64)
        boxes = np.array([[16, 0, 32, 16], [0, 0, 1, 1], [32, 32, 48, 64]], np.float32)
        scores = np.array([0.5, 0.1, 0.75], np.float32)
        return {"boxes": boxes, "scores": scores, "labels": np.array([0, 0, 1])}

    answer = pipeline.run({"image": np.zeros((128, 64, 3), np.uint8)}, {"model": run})
    assert answer["labels"] == ["dog", "cat"]
    assert answer["scores"].tolist() == [0.75, 0.5]
    assert answer["boxes"].tolist() == [[32, 64, 64, 128], [0, 0, 32, 32]]


def test_labels_that_are_too_few_for_the_grid_are_refused_when_the_bundle_loads(
    tmp_path: Path,
) -> None:
    code = load_template(tmp_path, FILE)
    graph = graph_of(
        [tensor("images", "FP32", 1, 3, 64, 64)], [tensor("output0", "FP32", 1, 84, 8400)]
    )
    with pytest.raises(ValueError, match=r"assets/labels.txt: expected 80 labels, found 1"):
        code.Pipeline(FakeBundle(graph, {"labels.txt": "cat\n"}))
