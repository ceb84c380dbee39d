"""Tensors in shared memory: where they lie, what the headers say, and how answers are read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import pytest

from superbrain.client.buffers import SharedTensors
from superbrain.client.calls import Call, Shared
from superbrain.client.region import Region
from superbrain.client.result import Result
from superbrain.wire.errors import Internal, InvalidArgument, NotFound
from superbrain.wire.messages import (
    InferRequest,
    InferResponse,
    InterfaceTensor,
    ModelMetadata,
    SharedMemory,
    TensorHeader,
)

INTERFACE = ModelMetadata(
    "m",
    ["1"],
    "superbrain",
    [
        InterfaceTensor("flag", "BOOL", [1]),
        InterfaceTensor("image", "UINT8", [-1, 4]),
        InterfaceTensor("note", "BYTES", []),
    ],
    [InterfaceTensor("y", "FP32", [2]), InterfaceTensor("z", "INT64", [-1])],
)


class Owner:
    """Stands for the client: closes what is released."""

    def release(self, regions: Sequence[Region]) -> None:
        for region in regions:
            region.close()


def tensors(*, outputs: bool = True) -> SharedTensors:
    return SharedTensors(Owner(), INTERFACE, {"image": (3, 4)}, outputs=outputs)


@pytest.fixture
def made() -> Iterator[SharedTensors]:
    with tensors() as made:
        yield made


def called(made: SharedTensors) -> tuple[Call[Result], Shared]:
    call = made._call({"note": b"hello"}, "1", 3)
    assert call.shared is not None
    return call, call.shared


def test_inputs_lie_aligned_in_memory_that_nobody_can_shrink(made: SharedTensors) -> None:
    region = called(made)[1].regions[0]
    made["flag"][:] = True
    made["image"][:] = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert bytes(region.memory[:1]) == b"\1"
    assert bytes(region.memory[64:76]) == bytes(range(12))
    assert fcntl.fcntl(region.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(region.fd, 1)


def test_the_header_says_where_every_tensor_is(made: SharedTensors) -> None:
    call, shared = called(made)
    inputs, outputs = shared.regions
    header = msgspec.json.decode(shared.header("a-1"), type=InferRequest)
    assert [tensor.parameters for tensor in header.inputs] == [
        SharedMemory(inputs.number, 1, 0),
        SharedMemory(inputs.number, 12, 64),
        None,
    ]
    assert [(output.name, output.parameters) for output in header.outputs] == [
        ("y", SharedMemory(outputs.number, 8, 0)),
        ("z", None),
    ]
    assert shared.tensors == [b"\5\0\0\0hello"]
    assert (call.model, call.priority, header.model_version) == ("m", 3, "1")


def test_the_same_request_can_be_sent_inline(made: SharedTensors) -> None:
    call, _ = called(made)
    header = msgspec.json.decode(call.header("a-1", 0, False), type=InferRequest)
    assert all(tensor.parameters is None for tensor in header.inputs)
    assert list(map(len, call.tensors)) == [1, 12, 9]
    assert call.detached() is call


def test_an_answer_is_read_from_memory_and_frames(made: SharedTensors) -> None:
    call, shared = called(made)
    outputs = shared.regions[1]
    outputs.memory[:8] = np.array([1, 2], np.float32).tobytes()
    place = SharedMemory(outputs.number, 8, 0)
    headers = [TensorHeader("y", "FP32", [2], place), TensorHeader("z", "INT64", [1])]
    answer = msgspec.json.encode(InferResponse("m", "1", headers))
    result = call.read(answer, [memoryview(np.array([7], np.int64).tobytes())], "a-1")
    assert (result["y"].tolist(), result["z"].tolist()) == ([1.0, 2.0], [7])
    with pytest.raises(Internal):
        call.read(answer, [], "a-1")


def test_after_giving_up_answers_have_new_memory(made: SharedTensors) -> None:
    before = called(made)[1].regions
    made._gave_up()
    after = called(made)[1].regions
    assert after[0] is before[0]
    assert after[1] is not before[1]
    assert before[1].fd == -1


def test_outputs_may_stay_out_of_it() -> None:
    with tensors(outputs=False) as made:
        _, shared = called(made)
        assert len(shared.regions) == 1
        assert not msgspec.json.decode(shared.header("a"), type=InferRequest).outputs


@pytest.mark.parametrize("shape", [(4,), (3, 5), (-1, 4), (3, 4, 1)])
def test_a_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match=r"expected a shape for UINT8\[-1,4\]"):
        SharedTensors(Owner(), INTERFACE, {"image": shape}, outputs=True)


def test_who_was_interrupted_before_it_could_give_up_does_so_the_next_time(
    made: SharedTensors,
) -> None:
    made._begin()
    asked = called(made)[1].regions
    made._begin()
    assert called(made)[1].regions[1] is not asked[1]
    made._ended(NotFound("gone"))
    answered = called(made)[1].regions
    made._begin()
    assert called(made)[1].regions[1] is answered[1]
