"""What sizes outputs have, by what was seen."""

from __future__ import annotations

import numpy as np

from superbrain.convert.parity import Pair
from superbrain.convert.shapes import output_tensors, with_outputs
from superbrain.domain.manifest import GraphTensor, Range


def pairs(*seen: tuple[int, int, tuple[int, ...]]) -> list[Pair]:
    return [
        Pair("", {"batch": batch, "width": width}, [], [np.zeros(shape, np.float32)])
        for batch, width, shape in seen
    ]


def test_sizes_bear_the_names_of_the_sizes_that_they_follow() -> None:
    seen = pairs((1, 8, (1, 8, 4)), (2, 8, (2, 8, 4)), (2, 16, (2, 16, 4)))
    assert output_tensors(["y"], seen) == [GraphTensor("y", "FP32", ["batch", "width", 4])]


def test_a_size_that_follows_no_other_gets_a_name_and_bounds_of_its_own() -> None:
    seen = pairs((1, 8, (1, 2)), (2, 16, (2, 4)))
    outputs = output_tensors(["a/b"], seen)
    assert outputs[0].shape == ["batch", "a_b_1"]
    dynamic = with_outputs({"batch": Range(1, 1, 2)}, outputs, seen)
    assert dynamic["a_b_1"] == Range(0, 4, 65_536)


def test_a_size_that_was_only_seen_once_is_fixed() -> None:
    assert output_tensors(["y"], pairs((1, 8, (1, 8))))[0].shape == [1, 8]
