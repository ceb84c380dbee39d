"""A set of arrays against its declaration: what fits, and the sentence when it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from superbrain.domain.manifest import GraphTensor, InterfaceTensor, Range
from superbrain.domain.tensor_fit import TensorSet, spell_array

DYNAMIC = {"N": Range(1, 2, 4)}
PAIR = TensorSet(
    "input", [GraphTensor("a", "FP32", ["N", 3]), GraphTensor("b", "INT64", ["N"])], DYNAMIC
)
SQUARE = TensorSet("input", [GraphTensor("s", "FP32", ["K", "K"])])
OPEN = TensorSet("tensor", [InterfaceTensor("t", "BYTES", [-1, 2])])
NONE = TensorSet("input", [])


def floats(*shape: int) -> Any:  # noqa: ANN401
    return np.zeros(shape, np.float32)


def ints(*shape: int) -> Any:  # noqa: ANN401
    return np.zeros(shape, np.int64)


CASES: dict[str, tuple[TensorSet, dict[str, Any], str]] = {
    "fits": (PAIR, {"b": ints(2), "a": floats(2, 3)}, ""),
    "smallest": (PAIR, {"a": floats(1, 3), "b": ints(1)}, ""),
    "largest": (PAIR, {"a": floats(4, 3), "b": ints(4)}, ""),
    "nothing declared, nothing found": (NONE, {}, ""),
    "equal names": (SQUARE, {"s": floats(7, 7)}, ""),
    "any size": (OPEN, {"t": np.empty((0, 2), object)}, ""),
    "unequal names in one": (
        SQUARE,
        {"s": floats(7, 8)},
        "input 's': expected FP32[K, K], found FP32[7, 8]; K is 7 in 's' and 8 in 's'",
    ),
    "unequal names in two": (
        PAIR,
        {"a": floats(2, 3), "b": ints(3)},
        (
            "input 'b': expected INT64[N] with N from 1 to 4, found INT64[3]; "
            "N is 2 in 'a' and 3 in 'b'"
        ),
    ),
    "range": (
        PAIR,
        {"a": floats(5, 3), "b": ints(5)},
        "input 'a': expected FP32[N, 3] with N from 1 to 4, found FP32[5, 3]",
    ),
    "all missing": (PAIR, {}, "inputs: expected 'a', 'b', found 'a', 'b' missing"),
    "None is missing": (
        PAIR,
        {"a": None, "b": ints(2)},
        "inputs: expected 'a', 'b', found 'a' missing",
    ),
    "text array that is no object array": (
        OPEN,
        {"t": np.array([["a", "b"]])},
        "tensor 't': expected BYTES[-1, 2], found <U1[1, 2]",
    ),
    "a datatype without a name": (
        SQUARE,
        {"s": np.zeros((1, 1), complex)},
        "input 's': expected FP32[K, K], found <c16[1, 1]",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_arrays_fit_or_the_sentence_says_why_not(name: str) -> None:
    declared, arrays, sentence = CASES[name]
    assert declared.misfit(arrays) == sentence


def test_an_array_of_the_other_byte_order_does_not_fit() -> None:
    assert SQUARE.misfit({"s": np.zeros((1, 1), ">f4")})


def test_what_is_no_array_is_spelled_as_its_type() -> None:
    assert spell_array([1]) == "list"
