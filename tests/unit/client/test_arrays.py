"""What callers pass, made into arrays: by what it is, or by the interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.client.arrays import as_array, needs_interface
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import InterfaceTensor, ModelMetadata


def interface(datatype: str, shape: list[int] | None = None) -> ModelMetadata:
    return ModelMetadata("m", ["1"], "p", [InterfaceTensor("x", datatype, shape or [])], [])


class OffersItself:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray[Any, Any]:
        return np.arange(3, dtype="i2")


@pytest.mark.parametrize(
    "value", [np.zeros(3, "f8"), b"jpeg", "text", bytearray(b"x"), Path("file"), OffersItself()]
)
def test_a_value_with_a_type_of_its_own_needs_no_interface(value: object) -> None:
    assert not needs_interface([value])


@pytest.mark.parametrize("value", [1, 0.5, True, [1, 2], (0.5,), ["a", "b"], np.float64(0.5)])
def test_numbers_and_lists_need_the_interface(value: object) -> None:
    assert needs_interface([np.zeros(1), value])


def test_an_array_keeps_its_dtype_and_is_not_copied() -> None:
    array = np.zeros(3, "f8")
    assert as_array("x", array, interface("FP32")) is array


def test_what_offers_itself_as_an_array_is_taken_as_one() -> None:
    assert as_array("x", OffersItself()).dtype == np.int16


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a\0", b"a\0"),
        ("é", "é".encode()),
        (bytearray(b"b"), b"b"),
        (memoryview(b"c"), b"c"),
    ],
)
def test_bytes_and_text_become_one_element_of_shape_empty(value: object, expected: bytes) -> None:
    array = as_array("x", value)
    assert array.shape == ()
    assert array.item() == expected


def test_a_path_becomes_the_contents_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "page.jpg"
    file.write_bytes(b"\xff\xd8\0")
    assert as_array("image", file).item() == b"\xff\xd8\0"


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"gone\.jpg: No such file"):
        as_array("image", tmp_path / "gone.jpg")


@pytest.mark.parametrize(
    ("value", "datatype", "expected"),
    [
        (0.5, "FP32", np.float32(0.5)),
        (1, "FP16", np.float16(1)),
        ([1, 2], "INT64", np.array([1, 2])),
        ([[1, 2], [3, 4]], "UINT8", np.array([[1, 2], [3, 4]], "u1")),
        ([], "FP32", np.zeros(0, "f4")),
        ([True, False], "BOOL", np.array([True, False])),
        (np.float64(0.5), "FP32", np.float32(0.5)),
        (2**63, "UINT64", np.uint64(2**63)),
        ([2**64 - 1, 1], "UINT64", np.array([2**64 - 1, 1], "u8")),
        ([2**53, 0.1], "FP64", np.array([2**53, 0.1])),
        (2**70, "FP64", np.float64(2**70)),
        ([0.1, 2**24, np.inf], "FP32", np.array([0.1, 2**24, np.inf], "f4")),
        (16777217.0, "FP32", np.float32(2**24)),
        (["a", b"b\0"], "BYTES", np.array(["a", b"b\0"], object)),
    ],
)
def test_numbers_and_lists_take_the_datatype_of_the_interface(
    value: object, datatype: str, expected: np.generic | Array
) -> None:
    array = as_array("x", value, interface(datatype))
    assert array.dtype == expected.dtype
    assert np.array_equal(array, expected)


@pytest.mark.parametrize(
    ("value", "datatype", "found"),
    [
        (2.5, "INT64", "float of float64"),
        (300, "UINT8", "values from 300 to 300"),
        ([0, -1], "UINT32", "values from -1 to 0"),
        (1, "BOOL", "int of int64"),
        (True, "FP32", "bool of bool"),
        ([[1], [1, 2]], "FP32", "rows of different length"),
        (["a"], "FP32", "list of <U1"),
        (1e6, "FP16", "a value beyond its range"),
        (None, "FP32", "NoneType of object"),
        (2**70, "INT64", f"values from {2**70} to {2**70}"),
        ([2**63, -1], "INT64", f"values from -1 to {2**63}"),
        ([2**63, -1], "UINT64", f"values from -1 to {2**63}"),
        (2**24 + 1, "FP32", "the whole number 16777217, which it cannot hold"),
        ([2**53 + 1], "FP64", "the whole number 9007199254740993, which it cannot hold"),
        ([0.5, 2**53 + 1], "FP64", "the whole number 9007199254740993, which it cannot hold"),
        (70000, "FP16", "the whole number 70000, which it cannot hold"),
        (10**400, "FP64", "the whole number of 1329 bits, which it cannot hold"),
        (["a", None], "BYTES", "an element that is NoneType"),
        ([1], "BYTES", "an element that is int"),
        ([["a"], ["b", "c"]], "BYTES", "rows of different length"),
    ],
)
def test_values_that_would_change_are_refused(value: object, datatype: str, found: str) -> None:
    with pytest.raises(InvalidArgument, match=f"expected {datatype}.*found {found}"):
        as_array("x", value, interface(datatype))


def test_an_unknown_input_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InvalidArgument, match=r"it has: x.*found 'xx'") as caught:
        as_array("xx", 1, interface("FP32"))
    assert caught.value.mend == "Did you mean 'x'?"


@pytest.mark.parametrize("text", ["\ud800", ["a", "\ud800"]])
def test_text_that_is_no_unicode_is_refused_with_the_name_of_its_input(text: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidArgument, match=r"input 'x': expected text that is Unicode"):
        as_array("x", text, interface("BYTES"))
