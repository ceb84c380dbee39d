"""The model behind a fake server."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.client import calls
from superbrain.client.fake_model import FakeModel, parse_tensor
from superbrain.wire.errors import Internal, InvalidArgument, NotFound
from superbrain.wire.messages import InferRequest, TensorHeader, decode_header

_REQUEST = msgspec.json.Decoder(InferRequest)


def request(inputs: dict[str, Any], outputs: list[str] | None = None) -> tuple[InferRequest, Any]:
    call = calls.infer("m", inputs, outputs=outputs)
    return decode_header(call.header("a-1", 0, False), _REQUEST, "a request"), call.tensors


MODEL = FakeModel(dict, {"image": "BYTES[]", "x": "FP32[-1,2]"}, {"y": "FP32[2]"})


@pytest.mark.parametrize(
    ("text", "datatype", "shape"),
    [("FP32[-1,3]", "FP32", [-1, 3]), ("BYTES[]", "BYTES", []), ("INT8 [ 2 ]", "INT8", [2])],
)
def test_an_interface_is_written_as_people_read_it(
    text: str, datatype: str, shape: list[int]
) -> None:
    tensor = parse_tensor("x", text)
    assert (tensor.datatype, tensor.shape) == (datatype, shape)


@pytest.mark.parametrize("text", ["FP32", "FP31[2]", "FP32[2", "FP32[a]", ""])
def test_an_interface_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="something like FP32"):
        parse_tensor("x", text)


def test_a_scalar_of_bytes_reaches_the_function_as_bytes() -> None:
    inputs = MODEL.decode(*request({"image": b"jpeg", "x": np.ones((1, 2), "f4")}))
    assert inputs["image"] == b"jpeg"
    assert inputs["x"].tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"image": b""}, r"expected the inputs \['image', 'x'\], found \['image'\]"),
        ({"image": b"", "x": np.zeros((1, 2))}, r"expected FP32\[-1,2\], found FP64\[1,2\]"),
        ({"image": b"", "x": np.zeros(2, "f4")}, r"expected FP32\[-1,2\], found FP32\[2\]"),
        ({"image": b"", "x": np.zeros((1, 3), "f4")}, r"found FP32\[1,3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Any], found: str) -> None:
    with pytest.raises(InvalidArgument, match=found):
        MODEL.decode(*request(inputs))


def test_a_missing_frame_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="expected 1 tensor frames, found 0"):
        MODEL.decode(InferRequest("m", [TensorHeader("x", "FP32", [0])]), [])


def test_outputs_take_their_declared_datatypes() -> None:
    model = FakeModel(lambda _: {"y": [1, 2]}, outputs={"y": "FP32[2]"})
    assert model.run("m", {})["y"].dtype == np.float32


def test_a_request_error_passes_and_any_other_becomes_internal() -> None:
    def missing(_: dict[str, Any]) -> dict[str, Any]:
        raise NotFound("no page")

    def broken(_: dict[str, Any]) -> dict[str, Any]:
        return {"y": 1 / 0}

    with pytest.raises(NotFound, match="no page"):
        FakeModel(missing).run("m", {})
    with pytest.raises(Internal, match="model 'm' failed: ZeroDivisionError"):
        FakeModel(broken).run("m", {})


def test_only_the_outputs_asked_for_are_given() -> None:
    model = FakeModel(lambda _: {"y": 1, "z": 2})
    asked, _ = request({}, ["z"])
    response, tensors = model.encode(asked, model.run("m", {}))
    assert [output.name for output in response.outputs] == ["z"]
    assert len(tensors) == 1


def test_an_unknown_output_is_refused() -> None:
    asked, _ = request({}, ["nope"])
    with pytest.raises(InvalidArgument, match=r"expected outputs of \['y'\], found \['nope'\]"):
        FakeModel(dict).encode(asked, {"y": np.zeros(1)})
