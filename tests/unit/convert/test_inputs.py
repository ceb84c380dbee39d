"""What goes into a model: as it is typed, and together with what the model knows."""

from __future__ import annotations

import pytest

from superbrain.convert.errors import InputsUnclear
from superbrain.convert.inputs import (
    ASSUMED_BATCH,
    parse_dynamic,
    parse_input,
    parse_values,
    settle,
)
from superbrain.domain.manifest import GraphTensor, Range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=float32[batch,3,224,224]", GraphTensor("x", "FP32", ["batch", 3, 224, 224])),
        ("ids=int64[batch, length]", GraphTensor("ids", "INT64", ["batch", "length"])),
        ("x:0=FP16[4]", GraphTensor("x:0", "FP16", [4])),
        ("town=string[rows,1]", GraphTensor("town", "BYTES", ["rows", 1])),
        ("sr=int64[]", GraphTensor("sr", "INT64", [])),
    ],
)
def test_an_input_is_read_as_it_is_typed(text: str, expected: GraphTensor) -> None:
    assert parse_input(text) == expected


@pytest.mark.parametrize("text", ["x", "x=float32", "x=float33[1]", "x=float32[ü]", "=float32[1]"])
def test_an_input_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_input(text)


def test_bounds_are_read_as_they_are_typed() -> None:
    assert parse_dynamic("batch=1:4:16") == ("batch", Range(1, 4, 16))


@pytest.mark.parametrize("text", ["batch", "batch=1:4", "batch=4:1:16", "=1:2:3", "b=1:x:3"])
def test_bounds_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_dynamic(text)


def test_values_may_be_negative() -> None:
    assert parse_values("x=-1:1.5") == ("x", (-1.0, 1.5))


@pytest.mark.parametrize("text", ["x", "x=1", "x=2:1", "x=a:b", "=0:1"])
def test_values_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_values(text)


FOUND = [GraphTensor("image", "FP32", ["batch", 3, "image_2"])]


def test_an_author_names_inputs_and_sizes_anew() -> None:
    said = [GraphTensor("x", "FP32", ["N", 3, "height"])]
    settled = settle(said, FOUND, {"height": Range(8, 16, 32)}, {})
    assert settled.tensors == said
    assert settled.dynamic == {"N": ASSUMED_BATCH, "height": Range(8, 16, 32)}


def test_a_batch_without_bounds_is_assumed_and_said() -> None:
    settled = settle([], FOUND, {"image_2": Range(1, 2, 3)}, {})
    assert settled.notes == ["assumed --dynamic batch=1:4:16"]


def test_the_bounds_that_a_model_declares_are_taken() -> None:
    settled = settle([], FOUND, {}, {"batch": [1, 2, 8], "image_2": [8, 16, 32]})
    assert settled.dynamic == {"batch": Range(1, 2, 8), "image_2": Range(8, 16, 32)}


@pytest.mark.parametrize(
    ("said", "dynamic", "code"),
    [
        ([GraphTensor("x", "FP16", ["N", 3, "h"])], {}, "INPUTS_FORM"),
        ([GraphTensor("x", "FP32", ["N", 4, "h"])], {}, "INPUTS_FORM"),
        ([GraphTensor("x", "FP32", ["N", "c", "h"])], {}, "INPUTS_FORM"),
        ([GraphTensor("x", "FP32", [1]), GraphTensor("y", "FP32", [1])], {}, "INPUTS_COUNT"),
        ([], {}, "INPUTS_DYNAMIC"),
        ([], {"other": Range(1, 2, 3)}, "INPUTS_DYNAMIC"),
    ],
)
def test_a_contradiction_with_the_model_is_refused(
    said: list[GraphTensor], dynamic: dict[str, Range], code: str
) -> None:
    with pytest.raises(InputsUnclear) as refused:
        settle(said, FOUND, dynamic, {})
    assert refused.value.code == code
