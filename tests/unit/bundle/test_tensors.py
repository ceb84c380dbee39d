"""Golden tensor files: what was written is read back, everything else is a typed error."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.bundle.tensors import read_tensor, write_tensor
from superbrain.domain.errors import TensorFileError
from superbrain.domain.manifest import GraphTensor, InterfaceTensor
from superbrain.wire.datatypes import BYTES, NUMPY_DTYPES

NUMBERS = InterfaceTensor("x", "FP32", [-1, 2])
WORDS = InterfaceTensor("words", BYTES, [-1])
BLOB = InterfaceTensor("image", BYTES, [])
Array = np.ndarray[Any, np.dtype[Any]]


def objects(*items: object, shape: tuple[int, ...] | None = None) -> Array:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape((len(items),) if shape is None else shape)


def round_trip(folder: Path, tensor: InterfaceTensor | GraphTensor, array: Array) -> Array:
    path = write_tensor(folder, tensor, array)
    return read_tensor(str(path), path.read_bytes(), tensor)


def npy(folder: Path, array: Array) -> bytes:
    np.save(folder / "x.npy", array)
    return (folder / "x.npy").read_bytes()


@pytest.mark.parametrize("datatype", NUMPY_DTYPES)
def test_numbers_of_every_datatype_come_back(tmp_path: Path, datatype: str) -> None:
    array = np.array([[0, 1], [1, 0]], NUMPY_DTYPES[datatype])
    found = round_trip(tmp_path, InterfaceTensor("x", datatype, [2, 2]), array)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_empty_tensors_keep_their_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = InterfaceTensor("x", "FP32", list(shape))
    assert round_trip(tmp_path, tensor, np.zeros(shape, "f4")).shape == shape


def test_numpy_can_read_what_was_written(tmp_path: Path) -> None:
    array = np.array([[1, 2]], np.float32)
    np.testing.assert_array_equal(np.load(write_tensor(tmp_path, NUMBERS, array)), array)


def test_fortran_order_is_read_as_it_is_meant(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype="f4").reshape(3, 2))
    found = read_tensor("x.npy", npy(tmp_path, array), NUMBERS)
    np.testing.assert_array_equal(found, array)
    assert found.flags.c_contiguous


def test_named_sizes_of_a_graph_fit_any_size(tmp_path: Path) -> None:
    tensor = GraphTensor("x", "FP32", ["N", 2])
    assert round_trip(tmp_path, tensor, np.zeros((5, 2), "f4")).shape == (5, 2)


def test_a_name_with_a_slash_is_a_folder(tmp_path: Path) -> None:
    tensor = GraphTensor("model/scale_0.tmp_1", "FP32", [1])
    path = write_tensor(tmp_path, tensor, np.zeros(1, "f4"))
    assert path == tmp_path / "model" / "scale_0.tmp_1.npy"


@pytest.mark.parametrize(
    "items", [(), (b"a", "ü".encode()), (b"\x00\xff", b"", b"line\n")], ids=str
)
def test_strings_come_back(tmp_path: Path, items: tuple[bytes, ...]) -> None:
    assert round_trip(tmp_path, WORDS, objects(*items)).tolist() == list(items)


def test_strings_of_two_dimensions_come_back(tmp_path: Path) -> None:
    tensor = InterfaceTensor("words", BYTES, [2, -1])
    array = objects(b"a", b"b", b"c", b"d", shape=(2, 2))
    assert round_trip(tmp_path, tensor, array).tolist() == [[b"a", b"b"], [b"c", b"d"]]


@pytest.mark.parametrize(
    ("data", "suffix"), [(b"90", ".txt"), (b"\x89PNG\r", ".bin"), (b"", ".txt")]
)
def test_one_blob_is_its_raw_bytes(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = write_tensor(tmp_path, BLOB, objects(data, shape=()))
    assert (path.suffix, path.read_bytes()) == (suffix, data)
    assert read_tensor(str(path), data, BLOB).item() == data


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.json", "image.npy", "image"])
def test_a_blob_may_have_any_suffix(name: str) -> None:
    assert read_tensor(name, b"[1]", BLOB).item() == b"[1]"


def test_a_hand_written_list_of_texts_is_read() -> None:
    data = b'["text", {"base64": "AAE="}]'
    assert read_tensor("words.json", data, WORDS).tolist() == [b"text", b"\x00\x01"]


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", objects("a", "b"), allow_pickle=True)
    with pytest.raises(TensorFileError):
        read_tensor("x.npy", (tmp_path / "x.npy").read_bytes(), NUMBERS)


def test_a_header_that_promises_terabytes_is_refused(tmp_path: Path) -> None:
    data = npy(tmp_path, np.zeros((1, 2), "f4")).replace(b"(1, 2), }", b"(1000000000000, 2), }")
    with pytest.raises(TensorFileError):
        read_tensor("x.npy", data, NUMBERS)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 2), "f8"),
        np.zeros((1, 2), ">f4"),
        np.zeros((1, 3), "f4"),
        np.zeros(2, "f4"),
        np.zeros((1, 2), "c8"),
    ],
    ids=["datatype", "byte order", "size", "rank", "foreign"],
)
def test_another_tensor_than_declared_is_refused(tmp_path: Path, array: Array) -> None:
    with pytest.raises(TensorFileError, match=r"expected x as FP32\[-1, 2\]"):
        read_tensor("x.npy", npy(tmp_path, array), NUMBERS)


@pytest.mark.parametrize("cut", [0, 5, 20, 129])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    data = npy(tmp_path, np.zeros((1, 2), "f4"))
    with pytest.raises(TensorFileError):
        read_tensor("x.npy", data[:cut], NUMBERS)


@pytest.mark.parametrize(
    "content",
    [
        "text",
        7,
        [7],
        [None],
        [{"base64": "*"}],
        [{"base64": "AAE=", "more": 1}],
        {"shape": [2], "data": ["a"]},
        {"shape": [-1], "data": ["a"]},
        {"shape": [1, 1], "data": ["a"]},
        {"data": ["a"]},
    ],
    ids=json.dumps,
)
def test_json_of_another_form_is_refused(content: object) -> None:
    with pytest.raises(TensorFileError):
        read_tensor("words.json", json.dumps(content).encode(), WORDS)


@pytest.mark.parametrize(
    ("name", "tensor"), [("x.json", NUMBERS), ("x", NUMBERS), ("words.npy", WORDS)]
)
def test_another_suffix_is_refused(name: str, tensor: InterfaceTensor) -> None:
    with pytest.raises(TensorFileError, match=r"expected a \.(npy|json) file"):
        read_tensor(name, b"", tensor)


@pytest.mark.parametrize(
    ("tensor", "array"),
    [
        (NUMBERS, np.zeros((1, 2), "f8")),
        (NUMBERS, np.zeros((1, 3), "f4")),
        (NUMBERS, np.zeros((1, 2), "c8")),
        (WORDS, objects(b"a", shape=(1, 1))),
        (WORDS, objects(7)),
    ],
    ids=["datatype", "size", "foreign", "rank", "element"],
)
def test_an_array_that_was_not_declared_is_not_written(
    tmp_path: Path, tensor: InterfaceTensor, array: Array
) -> None:
    with pytest.raises(TensorFileError):
        write_tensor(tmp_path, tensor, array)
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=200), st.sampled_from([NUMBERS, WORDS]))
def test_arbitrary_bytes_are_a_tensor_or_a_typed_error(
    data: bytes, tensor: InterfaceTensor
) -> None:
    suffix = ".npy" if tensor is NUMBERS else ".json"
    with contextlib.suppress(TensorFileError):
        read_tensor(f"x{suffix}", data, tensor)


@given(st.binary(max_size=120))
def test_an_arbitrary_npy_header_is_a_typed_error(header: bytes) -> None:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(TensorFileError):
        read_tensor("x.npy", data, NUMBERS)
