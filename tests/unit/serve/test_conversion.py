"""What bundle authors may return, and what becomes of it: one table of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from superbrain.serve.conversion import RequestConversion, ResponseConversion, to_array
from superbrain.wire.errors import Internal
from tests.support.models import border

TEXT, TEXTS, NESTED = border("t", "BYTES"), border("t", "BYTES", -1), border("t", "BYTES", 2, 1)
FP16, FP32, FP64 = border("t", "FP16", -1), border("t", "FP32", -1), border("t", "FP64", -1)
SCORE = border("t", "FP32")
INT8, INT64, UINT8 = border("t", "INT8", -1), border("t", "INT64", -1), border("t", "UINT8", -1)
BOOL, UINT64 = border("t", "BOOL", -1), border("t", "UINT64", -1)


def objects(*values: Any) -> np.ndarray:  # noqa: ANN401
    array = np.empty(len(values), object)
    array[:] = values
    return array


CONVERTED: dict[str, tuple[Any, Any, str, Any]] = {
    "str to one blob": (TEXT, "grün", "object", "grün".encode()),
    "bytes to one blob": (TEXT, b"\xff\0", "object", b"\xff\0"),
    "bytearray to one blob": (TEXT, bytearray(b"a"), "object", b"a"),
    "memoryview to one blob": (TEXT, memoryview(b"a"), "object", b"a"),
    "empty blob": (TEXT, b"", "object", b""),
    "0-d object array": (TEXT, objects("a").reshape(()), "object", b"a"),
    "list of str and bytes": (TEXTS, ["a", b"b\0"], "object", [b"a", b"b\0"]),
    "tuple of str": (TEXTS, ("a",), "object", [b"a"]),
    "empty list of text": (TEXTS, [], "object", []),
    "lists of lists of text": (NESTED, [["a"], ["b"]], "object", [[b"a"], [b"b"]]),
    "array of str": (TEXTS, np.array(["a", "bc"]), "object", [b"a", b"bc"]),
    "array of bytes": (TEXTS, np.array([b"a"]), "object", [b"a"]),
    "array of objects": (TEXTS, objects("a", b"b"), "object", [b"a", b"b"]),
    "python float": (SCORE, 0.5, "float32", 0.5),
    "python int as float": (SCORE, 2, "float32", 2.0),
    "python bool as float": (SCORE, True, "float32", 1.0),
    "numpy scalar": (SCORE, np.float64(0.5), "float32", 0.5),
    "list of floats": (FP32, [0.5, 1.5], "float32", [0.5, 1.5]),
    "list of numpy scalars": (FP32, [np.float64(0.5)], "float32", [0.5]),
    "list of floats as FP16": (FP16, [0.1], "float16", [np.float16(0.1)]),
    "list of large ints": (UINT64, [2**64 - 1, 1], "uint64", [2**64 - 1, 1]),
    "large int that a float holds": (FP32, [2**30], "float32", [2.0**30]),
    "infinity stays": (FP32, [float("inf")], "float32", [float("inf")]),
    "empty list of floats": (FP32, [], "float32", []),
    "empty list of integers": (INT64, [], "int64", []),
    "list of ints": (INT8, [1, -1], "int8", [1, -1]),
    "list of bools as ints": (UINT8, [True, False], "uint8", [1, 0]),
    "list of bools": (BOOL, [True, False], "bool", [True, False]),
    "array as declared": (FP64, np.array([0.5]), "float64", [0.5]),
    "array of the other byte order": (FP32, np.array([0.5], ">f4"), "float32", [0.5]),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_value_becomes_the_declared_tensor(name: str) -> None:
    tensor, value, dtype, expected = CONVERTED[name]
    array = to_array(tensor, value)
    assert (str(array.dtype), array.tolist()) == (dtype, expected)


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "array of another dtype": (FP32, np.array([0.5]), "expected FP32[-1], found FP64[1]"),
    "array of integers": (INT64, np.array([1], "i4"), "expected INT64[-1], found INT32[1]"),
    "float as integer": (INT64, [1.0], "expected INT64[-1], found list [1.0]"),
    "float as bool": (BOOL, [1.0], "expected BOOL[-1], found list [1.0]"),
    "int as bool": (BOOL, [1], "expected BOOL[-1], found list [1]"),
    "int too large": (INT8, [1, 300], "found 300, which int8 cannot hold"),
    "int negative": (UINT8, [-1], "found -1, which uint8 cannot hold"),
    "int beyond all": (INT64, [2**70], "found 1180591620717411303424, which int64 cannot hold"),
    "int that a float rounds": (FP32, [2**24 + 1], "found 16777217, which float32 cannot hold"),
    "int among floats": (FP64, [0.5, 2**53 + 1], "found 9007199254740993, which float64 cannot"),
    "int and negative": (UINT64, [2**63, -1], "found -1, which uint64 cannot hold"),
    "float too large": (FP16, [1e6], "found 1000000.0, which float16 cannot hold"),
    "text as number": (FP32, ["1"], "expected FP32[-1], found list ['1']"),
    "none as number": (SCORE, None, "expected FP32[], found NoneType None"),
    "ragged": (FP32, [[1.0], [1.0, 2.0]], "found list that numpy refuses"),
    "complex": (FP32, [1j], "found list [1j]"),
    "number as blob": (TEXT, 7, "expected BYTES[], found int 7"),
    "dict as blob": (TEXT, {"a": 1}, "expected BYTES[], found dict {'a': 1}"),
    "number among texts": (TEXTS, ["a", 7], "found an element that is int 7"),
    "array of numbers as texts": (TEXTS, np.array([7]), "found an element that is int 7"),
    "ragged texts": (TEXTS, [["a"], ["a", "b"]], "found lists of different lengths"),
    "text that is no Unicode": (TEXT, "\udc80", "found text that is no UTF-8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_cannot_be_the_tensor_is_refused_with_a_sentence(name: str) -> None:
    tensor, value, sentence = REFUSED[name]
    with pytest.raises(Internal) as caught:
        to_array(tensor, value)
    assert caught.value.message.startswith("response tensor 't': expected ")
    assert sentence in caught.value.message


def test_an_array_of_another_dtype_is_told_how_to_mend_it() -> None:
    with pytest.raises(Internal) as caught:
        to_array(FP32, np.array([0.5]))
    assert caught.value.mend == 'Return array.astype("float32")'


def test_an_array_as_declared_is_not_copied() -> None:
    array = np.zeros(3, np.float32)
    assert to_array(FP32, array) is array


def test_a_request_blob_reaches_the_pipeline_as_bytes() -> None:
    request = {"t": objects(b"jpeg").reshape(())}
    assert RequestConversion([TEXT])(request) == {"t": b"jpeg"}


def test_other_request_tensors_reach_the_pipeline_as_they_are() -> None:
    request = {"t": objects(b"a", b"b")}
    assert RequestConversion([TEXTS])(request)["t"] is request["t"]


LABELS = [border("label", "BYTES"), border("scores", "FP32", 2)]


def test_a_response_has_the_order_of_the_interface() -> None:
    response = ResponseConversion(LABELS)({"scores": [0.1, 0.9], "label": "cat"})
    assert list(response) == ["label", "scores"]


WRONG_RESPONSES: dict[str, tuple[Any, str]] = {
    "no dict": ([1], "expected the pipeline to return a dict of label, scores, found list"),
    "none": (None, "expected the pipeline to return a dict of label, scores, found NoneType"),
    "missing": (
        {"label": "cat"},
        "response tensors: expected 'label', 'scores', found 'scores' missing",
    ),
    "extra": (
        {"label": "cat", "scores": [0.1, 0.9], "more": 1},
        "response tensors: expected 'label', 'scores', found 'more' not expected",
    ),
    "fixed size": (
        {"label": "cat", "scores": [0.1]},
        "response tensor 'scores': expected FP32[2], found FP32[1]",
    ),
    "rank": (
        {"label": ["cat"], "scores": [0.1, 0.9]},
        "response tensor 'label': expected BYTES[], found BYTES[1]",
    ),
}


@pytest.mark.parametrize("name", WRONG_RESPONSES)
def test_a_response_that_is_not_what_the_interface_says_is_internal(name: str) -> None:
    returned, sentence = WRONG_RESPONSES[name]
    with pytest.raises(Internal) as caught:
        ResponseConversion(LABELS)(returned)
    assert caught.value.message == sentence
