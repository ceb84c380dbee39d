"""Requests as they are written."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from superbrain.client import calls
from superbrain.client.alike import Alike
from superbrain.wire.errors import Internal, InvalidArgument


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


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_beyond_the_range_is_refused(priority: int) -> None:
    with pytest.raises(InvalidArgument, match=f"priority of 0 to 9, found {priority}"):
        calls.infer("m", {}, priority=priority)


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
