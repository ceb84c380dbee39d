"""Results: read from a reply, and taken apart by the caller."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from superbrain.client.result import Result, read_result
from superbrain.wire.datatypes import datatype_of, encode_tensor
from superbrain.wire.errors import Internal, InvalidArgument
from superbrain.wire.messages import InferResponse, TensorHeader

OUTPUTS = {
    "scores": np.array([[0.5, 0.25]], "f4"),
    "label": np.array(b"upright", object),
    "lines": np.array([b"a", b"b"], object),
    "raw": np.array(b"\xff", object),
}


def reply() -> tuple[bytes, list[memoryview]]:
    headers = [
        TensorHeader(name, datatype_of(array), list(array.shape)) for name, array in OUTPUTS.items()
    ]
    tensors = [memoryview(bytearray(encode_tensor(array))) for array in OUTPUTS.values()]
    return msgspec.json.encode(InferResponse("m", "1.2.0", headers, "a-1")), tensors


@pytest.fixture
def result() -> Result:
    return read_result(*reply(), "a-1")


def test_outputs_are_arrays_by_name_in_the_models_order(result: Result) -> None:
    assert list(result) == list(OUTPUTS)
    assert len(result) == 4
    assert (result.model_name, result.model_version, result.id) == ("m", "1.2.0", "a-1")
    for name, array in OUTPUTS.items():
        assert result[name].dtype == array.dtype
        assert np.array_equal(result[name], array)


def test_numbers_belong_to_the_caller_who_may_change_them(result: Result) -> None:
    result["scores"][0, 0] = 7
    assert result["scores"][0, 0] == 7


def test_one_element_of_bytes_is_given_as_bytes_or_text(result: Result) -> None:
    assert result.bytes("label") == b"upright"
    assert result.text("label") == "upright"
    assert result["label"].item() == b"upright"


@pytest.mark.parametrize(
    ("name", "found"), [("lines", r"object of shape \[2\]"), ("scores", "float32 of shape")]
)
def test_anything_else_than_one_element_is_refused(result: Result, name: str, found: str) -> None:
    with pytest.raises(InvalidArgument, match=f"one element, found {found}"):
        result.bytes(name)


def test_text_that_is_no_utf8_is_refused(result: Result) -> None:
    with pytest.raises(InvalidArgument, match="expected UTF-8"):
        result.text("raw")


def test_an_unknown_output_is_a_key_error_that_lists_the_outputs(result: Result) -> None:
    with pytest.raises(KeyError, match="this answer has: scores, label, lines, raw"):
        result["nope"]
    assert "nope" not in result


def test_repr_shows_version_dtypes_and_shapes(result: Result) -> None:
    assert "m 1.2.0 {scores: float32[1, 2], label: object[]" in repr(result)


def test_a_reply_with_a_missing_frame_is_the_servers_fault() -> None:
    header, tensors = reply()
    with pytest.raises(Internal, match="expected 4 output frames, found 3"):
        read_result(header, tensors[:-1], "a-1")


@pytest.mark.parametrize("header", [b"", b"[]", b'{"model_name":"m"}'])
def test_a_reply_that_is_no_response_is_the_servers_fault(header: bytes) -> None:
    with pytest.raises(Internal, match="does not fit the protocol"):
        read_result(header, [], "a-1")
