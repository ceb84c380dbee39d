"""Requests as they are written."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.client import calls
from superbrain.client.alike import Alike
from superbrain.wire.errors import Internal, InvalidArgument
from superbrain.wire.messages import InterfaceTensor, ModelMetadata


def test_an_inference_request_has_every_field_in_its_place() -> None:
    call = calls.infer(
        "m",
        {"image": b"jpeg", "x": np.zeros((2, 3), "f4")},
        version="1.2.0",
        outputs=["y"],
        priority=7,
    )
    assert call.verb == b"I"
    assert msgspec.json.decode(call.header("a-1", 500, False)) == {
        "model_name": "m",
        "id": "a-1",
        "model_version": "1.2.0",
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": []},
            {"name": "x", "datatype": "FP32", "shape": [2, 3]},
        ],
        "parameters": {"timeout_ms": 500, "priority": 7},
        "outputs": [{"name": "y"}],
    }
    assert [bytes(tensor) for tensor in call.tensors] == [b"\x04\0\0\0jpeg", bytes(24)]


def test_a_detached_call_does_not_see_later_changes() -> None:
    array = np.zeros(2, "u1")
    call = calls.infer("m", {"x": array})
    detached = call.detached()
    array[:] = 7
    assert (bytes(call.tensors[0]), bytes(detached.tensors[0])) == (b"\x07\x07", b"\0\0")


@pytest.mark.parametrize("priority", [-1, 10, 2.5, "high", None, [1]])
def test_a_priority_that_is_none_is_refused(priority: Any) -> None:  # noqa: ANN401
    expected = f"priority of 0 to 9, a whole number, found {priority!r}"
    with pytest.raises(InvalidArgument, match=re.escape(expected)):
        calls.infer("m", {}, priority=priority)


def test_a_priority_may_be_a_whole_number_of_numpy() -> None:
    assert calls.infer("m", {}, priority=np.int64(3)).priority == 3  # type: ignore[arg-type]


NAMES: dict[str, tuple[dict[str, Any], str]] = {
    "model, no text": ({"model": 3}, "text as a model's name, found 3"),
    "model, no Unicode": ({"model": "\ud800"}, "text as a model's name, found"),
    "input, no text": ({"inputs": {1: b""}}, "text as an input's name, found 1"),
    "input, no Unicode": ({"inputs": {"\ud800": b""}}, "text as an input's name, found"),
    "version": ({"version": 1}, "text as a version, found 1"),
    "outputs, one text": ({"outputs": "id"}, "list of outputs' names, found the text 'id'"),
    "output, no text": ({"outputs": [1]}, "text as an output's name, found 1"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_header_can_have_is_refused(name: str) -> None:
    arguments, found = NAMES[name]
    with pytest.raises(InvalidArgument, match=re.escape(found)):
        calls.infer(**{"model": "m", "inputs": {}} | arguments)
    if "model" in arguments:
        with pytest.raises(InvalidArgument, match=re.escape(found)):
            calls.model_metadata(arguments["model"])


UNSENDABLE: dict[str, tuple[Any, str]] = {
    "objects": (np.array([1, 2], object), "found dtype object with an element that is 1"),
    "none": (np.array(["a", None], object), "found dtype object with an element that is None"),
    "no Unicode": (np.array(["a", "\ud800"]), r"found dtype <U1 with an element that is '\ud800'"),
    "complex": (np.array([1j]), "found dtype complex128"),
    "times": (np.array(["2020-01-01"], "M8[s]"), "found dtype datetime64[s]"),
    "long floats": (np.ones(2, np.longdouble), "found dtype float"),
    "structs": (np.zeros(2, "f4,i4"), "found dtype [('f0', '<f4'), ('f1', '<i4')]"),
}


@pytest.mark.parametrize("name", UNSENDABLE)
def test_an_array_that_cannot_be_sent_is_refused_by_the_name_of_its_input(name: str) -> None:
    array, found = UNSENDABLE[name]
    interface = ModelMetadata("m", ["1"], "p", [InterfaceTensor("x", "FP64", [-1])], [])
    for known, expected in ((None, "expected an array of BOOL"), (interface, "expected FP64[-1]")):
        with pytest.raises(InvalidArgument) as caught:
            calls.infer("m", {"x": array}, interface=known)
        assert str(caught.value).startswith(f"input 'x': {expected}")
        assert found in str(caught.value)
        assert "array.astype(...)" in caught.value.mend


def test_more_bytes_than_a_message_may_have_are_refused_here() -> None:
    huge = np.empty(calls.MAX_INPUT_BYTES + 1, "u1")
    with pytest.raises(InvalidArgument, match="inputs of together"):
        calls.infer("m", {"x": huge})


def test_a_reply_of_another_kind_is_the_servers_fault() -> None:
    with pytest.raises(Internal, match="expected ModelList"):
        calls.model_list().read(b'{"live": true}', [], "a-1")


def test_requests_like_the_last_are_written_in_one_step_and_are_the_same() -> None:
    alike = Alike()
    x = np.arange(4, dtype=np.float32)
    for _ in range(2):
        assert alike.last("m") is None
        alike.remember(calls.infer("m", {"x": x}), {"x": x})
    last = alike.last("m")
    assert last is not None
    for inputs in ({"x": x}, {"x": x + 1}):
        found, expected = last.call(inputs), calls.infer("m", inputs)
        assert found is not None
        assert [bytes(one) for one in found.tensors] == [bytes(one) for one in expected.tensors]
        for request in (("a-1", 0, False), ("a", 0, False), ("b", 0, False), ("a", 70, True)):
            assert found.header(*request) == expected.header(*request)
        assert (found.what, found.verb, found.model) == (expected.what, expected.verb, "m")
    assert last.call({"x": x[:2]}) is None
    assert alike.last("other") is None
