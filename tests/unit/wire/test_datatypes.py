"""Tensors survive the wire, and bytes that do not fit are refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from superbrain.wire.datatypes import (
    NUMPY_DTYPES,
    datatype_of,
    decode_tensor,
    encode_tensor,
)
from superbrain.wire.errors import InvalidArgument

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
NUMBERS = st.sampled_from(list(NUMPY_DTYPES.values())).flatmap(lambda d: hnp.arrays(d, SHAPES))


@given(NUMBERS)
def test_every_number_tensor_survives_the_wire(array: np.ndarray) -> None:
    name = datatype_of(array)
    back = decode_tensor("x", name, array.shape, bytes(encode_tensor(array)))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_every_bytes_tensor_survives_the_wire(elements: list[bytes]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    back = decode_tensor("x", "BYTES", array.shape, encode_tensor(array))
    assert back.tolist() == elements


@pytest.mark.parametrize("element", ["äöü", b"blob", bytearray(b"blob"), memoryview(b"blob")])
def test_strings_and_byte_likes_become_bytes(element: str | bytes) -> None:
    array = np.empty((), object)
    array[()] = element
    back = decode_tensor("x", "BYTES", [], encode_tensor(array))
    assert back.shape == ()
    assert back[()] == (element.encode() if isinstance(element, str) else bytes(element))


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.array([b"a", b"b"])])
def test_numpy_strings_become_bytes(array: np.ndarray) -> None:
    assert datatype_of(array) == "BYTES"
    assert decode_tensor("x", "BYTES", [2], encode_tensor(array)).tolist() == [b"a", b"b"]


def test_big_endian_and_strided_arrays_are_put_in_wire_order() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert datatype_of(array) == "INT32"
    back = decode_tensor("x", "INT32", [3, 2], encode_tensor(array))
    np.testing.assert_array_equal(back, array)


def test_contiguous_numbers_are_not_copied() -> None:
    array = np.zeros(4, np.float32)
    encoded = np.frombuffer(encode_tensor(array), np.uint8)
    assert np.shares_memory(encoded, array)


def test_an_array_of_a_subclass_travels_as_its_numbers() -> None:
    array = np.ma.masked_equal(np.arange(3, dtype=np.int32), 1)
    assert decode_tensor("x", "INT32", [3], encode_tensor(array)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "sentence"),
    [
        ("FP32", [2], b"1234567", "expected 8 bytes"),
        ("FP32", [2], b"123456789", "expected 8 bytes"),
        ("FP32", [], b"", "expected 4 bytes"),
        ("FP32", [-1], b"", "zero or more"),
        ("FP32", [1 << 30, 1 << 30], b"", "expected 4611686018427387904 bytes"),
        ("FP32", [0, 1 << 31, 1 << 31], b"", "shape that an array can have"),
        ("BYTES", [0, 1 << 70], b"", "shape that an array can have"),
        ("FP32", [1] * 65, b"1234", "shape that an array can have"),
        ("BF16", [1], b"12", "datatype"),
        ("", [1], b"", "datatype"),
        ("BYTES", [1], b"", "expected 1 length-prefixed"),
        ("BYTES", [1], b"\x01\x00", "expected 1 length-prefixed"),
        ("BYTES", [1], b"\x05\x00\x00\x00abc", "announces 5 bytes"),
        ("BYTES", [1], b"\x01\x00\x00\x00ab", "end at byte 5"),
        ("BYTES", [0], b"\x00\x00\x00\x00", "expected 0"),
        ("BYTES", [1 << 30], b"\x00\x00\x00\x00", "found 1"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    datatype: str, shape: list[int], data: bytes, sentence: str
) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        decode_tensor("x", datatype, shape, data)


@given(
    st.sampled_from([*NUMPY_DTYPES, "BYTES"]),
    st.lists(st.integers(-2, 1 << 70), max_size=4),
    st.binary(max_size=64),
)
def test_arbitrary_bytes_give_a_tensor_or_a_refusal(
    datatype: str, shape: list[int], data: bytes
) -> None:
    try:
        array = decode_tensor("x", datatype, shape, data)
    except InvalidArgument:
        return
    assert list(array.shape) == shape


def test_a_dtype_without_a_name_is_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidArgument, match="complex") as caught:
        datatype_of(np.zeros(1, np.complex64))
    assert "astype" in caught.value.mend


def test_an_object_array_of_anything_but_bytes_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="found int"):
        encode_tensor(np.array([1, 2], object))
