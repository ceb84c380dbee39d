"""Requests in shared memory that come again and again: right each time, and nothing is kept.

Each test runs with either twin, and with requests that come alone, and two at a time.
"""

from __future__ import annotations

import mmap
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.serve import executor
from superbrain.serve.figures import WorkerFigures
from superbrain.serve.stage_clock import StageClock
from superbrain.serve.worker_lane import WorkerLane
from superbrain.transport import compiled
from superbrain.transport.flight import FlightPage
from superbrain.transport.lane_socket import LaneSocket
from superbrain.transport.packing import packing_of
from superbrain.wire import lane
from superbrain.wire.datatypes import Array, encode_tensor
from superbrain.wire.messages import RequestedOutput, SharedMemory, TensorHeader
from tests.support.keeping import assert_keeps_nothing
from tests.support.twins import twin
from tests.support.worker_loop import (
    FAR_NS,
    Loop,
    add_one,
    asking,
    error,
    inline,
    placed,
    release_header,
    response,
)

__all__ = ["twin"]
TIMES = 6
ROOM = 1024
Y = RequestedOutput("y")
Y_IN_2 = RequestedOutput("y", SharedMemory(2, 64, ROOM))
X = np.zeros(3, np.float32)


class Bench:
    """A loop, and one peer who asks the same again and again: once or twice at a time."""

    def __init__(self, loop: Loop, *, fast: bool, together: bool) -> None:
        self.loop = loop
        self.model = loop.model
        self.peer = loop.connect()
        self.model.outputs = ("y",)
        self.model.does = lambda asked: {"y": asked["x"] + np.float32(1)}
        self.fast = fast
        self.together = together

    def give_sums(self) -> None:
        """Let the model give `z` too, the sum of all inputs."""
        self.model.outputs = ("y", "z")
        self.model.does = add_one

    def ask(self, header: bytes, *tensors: lane.Data) -> lane.LaneFrame:
        """Give the answer; that of the second of two must be the same."""
        if not self.together:
            return self.loop.ask(self.peer, header, tensors)
        soon_ns = time.monotonic_ns() + FAR_NS
        numbers = [self.loop.send(self.peer, header, tensors, soon_ns) for _ in range(2)]
        self.loop.loop.turn()
        first, second = self.loop.answers(self.peer, 2)
        self.loop.assert_idle()
        assert [first.request_id, second.request_id] == numbers
        assert (first.kind, bytes(first.header)) == (second.kind, bytes(second.header))
        assert list(map(bytes, first.tensors)) == list(map(bytes, second.tensors))
        return second

    def region(self, number: int, *, writable: bool = True) -> mmap.mmap:
        return self.loop.share(self.peer, number, writable=writable)

    def release(self, number: int) -> None:
        self.loop.release(self.peer, number)

    def assert_usual_after(self, firsts: int) -> None:
        """After the first ones all that the model was asked was asked in one step.

        Of two the first of which has to go in steps, the second waits for its turn too.
        """
        everything = self.model.asked
        assert self.loop.in_steps == (firsts if self.fast else everything)
        in_turn = 2 if self.together else firsts
        assert self.loop.at_once == (everything - in_turn if self.fast else 0)


@pytest.fixture(params=["alone", "together"])
def bench(
    twin: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    monkeypatch.setattr(executor, "TOGETHER_NS", FAR_NS)  # the second of two is not too late for it
    loop = Loop(tmp_path / "lane", monkeypatch)
    yield Bench(loop, fast=twin == "compiled", together=request.param == "together")
    loop.close()


def view(memory: mmap.mmap, dtype: Any = np.float32, offset: int = 0) -> Array:  # noqa: ANN401
    return np.frombuffer(memory, dtype, offset=offset)


def outputs(bench: Bench, header: bytes, *tensors: lane.Data) -> list[TensorHeader]:
    """What the header of the answer says of it; no tensor comes with its frame."""
    frame = bench.ask(header, *tensors)
    assert not frame.tensors
    return response(frame).outputs


# --- the same answers ---------------------------------------------------------------------------


def test_what_is_in_the_region_now_is_answered_to_the_room(bench: Bench) -> None:
    inputs, rooms = bench.region(1), bench.region(2)
    header = asking(placed("x", X, 1, 64), outputs=[Y_IN_2])
    for value in range(TIMES):
        view(inputs, offset=64)[:3] = [value, 2 * value, -value]
        view(rooms)[:] = -7
        said = outputs(bench, header)
        assert said == [TensorHeader("y", "FP32", [3], SharedMemory(2, 12, ROOM))]
        found = view(rooms)
        assert found[256:259].tolist() == [value + 1, 2 * value + 1, 1 - value]
        assert (np.delete(found, [256, 257, 258]) == -7).all()
    bench.assert_usual_after(1)


def test_every_answer_is_word_for_word_the_first(bench: Bench) -> None:
    bench.give_sums()
    view(bench.region(1))[:3] = [1, 2, 3]
    header = asking(placed("x", X, 1))
    frames = [bench.ask(header) for _ in range(TIMES)]
    first = frames[0]
    assert [output.name for output in response(first).outputs] == ["y", "z"]
    for frame in frames:
        assert bytes(frame.header) == bytes(first.header)
        assert list(map(bytes, frame.tensors)) == list(map(bytes, first.tensors))
    bench.assert_usual_after(1)


def test_input_and_output_may_be_the_same_bytes(bench: Bench) -> None:
    memory = bench.region(1)
    header = asking(placed("x", X, 1), outputs=[RequestedOutput("y", SharedMemory(1, 12))])
    for _ in range(TIMES):
        bench.ask(header)
    assert view(memory)[:4].tolist() == [bench.model.asked] * 3 + [0]
    bench.assert_usual_after(1)


@pytest.mark.parametrize("wanted", [["y", "z"], ["z", "y"]])
@pytest.mark.parametrize("roomed", ["y", "z"])
def test_outputs_without_a_room_come_with_the_frame(
    bench: Bench, wanted: Sequence[str], roomed: str
) -> None:
    bench.give_sums()
    bench.model.does = lambda asked: {name: add_one(asked)[name] for name in wanted}
    view(bench.region(1))[:3] = 0
    inputs, rooms = bench.region(3), bench.region(2)
    place = SharedMemory(2, 64, ROOM)
    asked = [RequestedOutput(name, place if name == roomed else None) for name in wanted]
    header = asking(placed("x", X, 3), outputs=asked)
    for value in range(TIMES):
        view(inputs)[:3] = value
        view(rooms)[:] = 0
        frame = bench.ask(header)
        assert [output.name for output in response(frame).outputs] == wanted
        (tensor,) = frame.tensors
        y, z = (rooms[ROOM : ROOM + 12], tensor) if roomed == "y" else (tensor, rooms[ROOM:])
        assert np.frombuffer(y, np.float32).tolist() == [value + 1] * 3
        assert np.frombuffer(z, np.float64)[0] == 3 * value


def test_inputs_that_come_with_the_frame_are_answered_to_rooms(bench: Bench) -> None:
    bench.give_sums()
    rooms = bench.region(2)
    header = asking(inline("x", X), outputs=[Y_IN_2, RequestedOutput("z")])
    for value in range(TIMES):
        frame = bench.ask(header, np.full(3, value, np.float32).tobytes())
        assert view(rooms, offset=ROOM)[:4].tolist() == [value + 1] * 3 + [0]
        assert np.frombuffer(frame.tensors[0], np.float64).tolist() == [3 * value]
        assert response(frame).outputs[0].parameters == SharedMemory(2, 12, ROOM)
    bench.assert_usual_after(2)


def test_several_inputs_are_each_where_they_are_said_to_be(bench: Bench) -> None:
    bench.give_sums()
    one, two = bench.region(1), bench.region(2)
    other = np.zeros((2, 2), np.float64)
    header = asking(placed("w", other, 2, 256), placed("x", X, 1, 128))
    for value in range(TIMES):
        view(one, offset=128)[:3] = value
        view(two, np.float64, 256)[:4] = 10 * value
        y, z = bench.ask(header).tensors
        assert np.frombuffer(y, np.float32).tolist() == [value + 1] * 3
        assert np.frombuffer(z, np.float64)[0] == 43 * value
    bench.assert_usual_after(1)


def test_where_only_some_inputs_are_in_shared_memory_all_are_read(bench: Bench) -> None:
    bench.give_sums()
    memory = bench.region(1)
    header = asking(placed("x", X, 1), inline("w", X))
    for value in range(TIMES):
        view(memory)[:3] = value
        z = bench.ask(header, np.full(3, 100, np.float32).tobytes()).tensors[1]
        assert np.frombuffer(z, np.float64)[0] == 300 + 3 * value


def test_a_number_without_dimensions_and_an_empty_tensor_are_read_from_memory(
    bench: Bench,
) -> None:
    memory = bench.region(1)
    number, nothing = np.zeros((), np.float32), np.zeros((0, 3), np.float32)
    for value in range(TIMES):
        view(memory)[16] = value
        (y,) = bench.ask(asking(placed("x", number, 1, 64))).tensors
        assert np.frombuffer(y, np.float32).tolist() == [value + 1]
        (y,) = bench.ask(asking(placed("x", nothing, 1))).tensors
        assert not bytes(y)


def test_where_only_some_outputs_are_wanted_they_alone_are_given(bench: Bench) -> None:
    bench.give_sums()
    inputs, rooms = bench.region(1), bench.region(2)
    for value in range(TIMES):
        view(inputs)[:3] = value
        view(rooms)[:] = 0
        outputs(bench, asking(placed("x", X, 1), outputs=[Y_IN_2]))
        assert view(rooms, offset=ROOM)[:4].tolist() == [value + 1] * 3 + [0]
        (z,) = bench.ask(asking(placed("x", X, 1), outputs=[RequestedOutput("z")])).tensors
        assert np.frombuffer(z, np.float64)[0] == 3 * value


def test_text_is_written_to_a_room_each_time(bench: Bench) -> None:
    inputs, rooms = bench.region(1), bench.region(2)
    bench.model.does = lambda asked: {"y": np.array([b"%d" % asked["x"][0]], object)}
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])
    for value in range(TIMES):
        view(inputs)[0] = value
        (said,) = outputs(bench, header)
        assert (said.datatype, said.parameters) == ("BYTES", SharedMemory(2, 5, ROOM))
        assert rooms[ROOM : ROOM + 6] == b"\1\0\0\0%d\0" % value


def test_an_output_of_another_size_or_layout_than_the_last_is_described_as_it_is(
    bench: Bench,
) -> None:
    inputs, rooms = bench.region(1), bench.region(2)

    def does(asked: dict[str, Array]) -> dict[str, Array]:
        count = int(asked["x"][0])
        return {"y": np.arange(2 * count, dtype=np.float32)[::2]}

    bench.model.does = does
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])
    for count in (1, 1, 1, 4, 4, 1, 2, 1):
        view(inputs)[0] = count
        said = outputs(bench, header)
        assert said == [TensorHeader("y", "FP32", [count], SharedMemory(2, 4 * count, ROOM))]
        assert view(rooms, offset=ROOM)[:count].tolist() == list(range(0, 2 * count, 2))


def test_many_kinds_of_requests_are_answered_each_by_its_own(bench: Bench) -> None:
    memory = bench.region(1)
    view(memory)[:] = np.arange(1024)
    for _ in range(2):
        for place in range(300):  # more than are remembered
            (y,) = bench.ask(asking(placed("x", X, 1, 4 * place))).tensors
            assert np.frombuffer(y, np.float32)[0] == place + 1


# --- what the model is given --------------------------------------------------------------------


def test_the_model_is_given_arrays_that_it_cannot_write(bench: Bench) -> None:
    memory = bench.region(1)
    view(memory)[:3] = 5
    refused: list[str] = []

    def does(asked: dict[str, Array]) -> dict[str, Array]:
        try:
            asked["x"][0] = 99
        except ValueError as error:
            refused.append(str(error))
        return {"y": asked["x"] * np.float32(2)}

    bench.model.does = does
    header = asking(placed("x", X, 1), outputs=[RequestedOutput("y")])
    for _ in range(TIMES):
        assert np.frombuffer(bench.ask(header).tensors[0], np.float32).tolist() == [10] * 3
    assert len(refused) == bench.model.asked
    assert bench.model.writeable == {False}
    assert view(memory)[:3].tolist() == [5] * 3
    bench.assert_usual_after(1)


@pytest.mark.parametrize("datatype", [np.bool_, np.int32, np.int64, np.uint32, np.uint64])
def test_what_native_code_checks_first_is_copied_before_each_request(
    bench: Bench,
    datatype: Any,  # noqa: ANN401 - a datatype of numpy
) -> None:
    memory = bench.region(1)
    seen: list[tuple[list[int], list[int]]] = []

    def does(asked: dict[str, Array]) -> dict[str, Array]:
        before = asked["x"].astype(int).tolist()
        memory[:64] = b"\1" * 64  # the peer writes while it is executed
        seen.append((before, asked["x"].astype(int).tolist()))
        memory[:64] = bytes(64)
        return {"y": np.zeros(1, np.float32)}

    bench.model.does = does
    for _ in range(TIMES):
        bench.ask(asking(placed("x", np.zeros(2, datatype), 1), outputs=[Y]))
    assert seen == [([0, 0], [0, 0])] * bench.model.asked
    assert bench.loop.at_once == 0


def test_real_numbers_are_used_where_they_are_each_time(bench: Bench) -> None:
    memory = bench.region(1)

    def does(asked: dict[str, Array]) -> dict[str, Array]:
        memory[0] += 1  # the peer writes while it is executed
        return {"y": asked["x"].copy()}

    bench.model.does = does
    header = asking(placed("x", np.zeros(4, np.uint8), 1), outputs=[Y])
    for _ in range(TIMES):
        number = bench.loop.send(bench.peer, header)
        bench.loop.loop.turn()
        (frame,) = bench.loop.answers(bench.peer)
        assert frame.request_id == number
        assert frame.tensors[0][0] == memory[0] == bench.model.asked


def test_one_copied_input_among_others_keeps_all_right(bench: Bench) -> None:
    bench.give_sums()
    memory = bench.region(1)
    header = asking(placed("x", X, 1), placed("rows", np.zeros(2, np.int64), 1, 64))
    for value in range(TIMES):
        view(memory)[:3] = value
        view(memory, np.int64, 64)[:2] = 50
        z = bench.ask(header).tensors[1]
        assert np.frombuffer(z, np.float64)[0] == 3 * value + 100
    assert bench.loop.at_once == 0


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("released", [1, 2])
def test_after_a_release_the_usual_request_is_refused_and_new_memory_is_used(
    bench: Bench, released: int
) -> None:
    memories = {1: bench.region(1), 2: bench.region(2)}
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])
    view(memories[1])[:3] = 1
    for _ in range(TIMES):
        bench.ask(header)
    bench.assert_usual_after(1)
    old = memories[released]
    bench.release(released)
    asked = bench.model.asked
    kept = bytes(old)
    for _ in range(3):
        refusal = error(bench.ask(header))
        assert refusal.code == "INVALID_ARGUMENT"
        assert f"registered on this lane ([{3 - released}]), found {released}" in str(refusal)
    assert bench.model.asked == asked

    memories[released] = bench.region(released)
    for value in range(10, 10 + TIMES):
        view(memories[1])[:3] = value
        outputs(bench, header)
        assert view(memories[2], offset=ROOM)[:3].tolist() == [value + 1] * 3
    assert bytes(old) == kept


def test_a_release_of_another_region_leaves_the_usual_request_right(bench: Bench) -> None:
    memory, _ = bench.region(1), bench.region(2)
    header = asking(placed("x", X, 1))
    for value in range(TIMES):
        view(memory)[:3] = value
        if value == 3:
            bench.release(2)
        (y,) = bench.ask(header).tensors
        assert np.frombuffer(y, np.float32).tolist() == [value + 1] * 3


def test_a_request_that_still_waits_when_its_region_is_released_is_refused(bench: Bench) -> None:
    bench.region(1)
    header = asking(placed("x", X, 1))
    for _ in range(3):
        bench.ask(header)
    asked = bench.model.asked
    bench.loop.send(bench.peer, header)
    bench.peer.send_frame(lane.RELEASE, release_header(1), [], 99)
    bench.loop.loop.turn()
    released, refused = bench.loop.answers(bench.peer, 2)
    assert (released.kind, released.request_id) == (lane.RELEASE, 99)
    assert error(refused).code == "INVALID_ARGUMENT"
    assert bench.model.asked == asked


def test_a_room_that_is_too_small_is_refused_each_time(bench: Bench) -> None:
    bench.give_sums()
    bench.region(1)
    rooms = bench.region(2)
    small = [RequestedOutput("z"), RequestedOutput("y", SharedMemory(2, 8))]
    header = asking(placed("x", X, 1), outputs=small)
    for _ in range(TIMES):
        assert "expected room for 12 bytes, found 8" in str(error(bench.ask(header)))
    assert bytes(rooms) == bytes(len(rooms))
    assert bench.loop.figures.caller_errors == bench.model.asked


def test_an_answer_that_outgrows_its_room_is_refused_and_the_next_one_is_not(
    bench: Bench,
) -> None:
    inputs, rooms = bench.region(1), bench.region(2)
    bench.model.does = lambda asked: {"y": np.full(int(asked["x"][0]), 9, np.float32)}
    header = asking(placed("x", X, 1), outputs=[RequestedOutput("y", SharedMemory(2, 12, ROOM))])
    for count in (3, 3, 3, 4, 3, 4, 4, 3):
        view(inputs)[0] = count
        view(rooms)[:] = 0
        frame = bench.ask(header)
        if count == 3:
            assert response(frame).outputs[0].parameters == SharedMemory(2, 12, ROOM)
            assert view(rooms, offset=ROOM)[:4].tolist() == [9] * 3 + [0]
        else:
            assert "expected room for 16 bytes, found 12" in str(error(frame))
            assert bytes(rooms) == bytes(len(rooms))


def test_a_room_in_memory_that_is_only_read_is_refused_each_time(bench: Bench) -> None:
    bench.region(1)
    bench.region(2, writable=False)
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])
    for _ in range(TIMES):
        assert "expected a writable region" in str(error(bench.ask(header)))
    assert not bench.model.asked


def test_memory_that_is_only_read_is_good_for_inputs(bench: Bench) -> None:
    memory = bench.region(1, writable=False)
    for value in range(TIMES):
        view(memory)[:3] = value
        (y,) = bench.ask(asking(placed("x", X, 1))).tensors
        assert np.frombuffer(y, np.float32).tolist() == [value + 1] * 3
    bench.assert_usual_after(1)


@pytest.mark.parametrize("usual", [0, 1, 3])
def test_a_frame_with_a_tensor_too_many_is_refused_each_time(bench: Bench, usual: int) -> None:
    bench.region(1)
    header = asking(placed("x", X, 1))
    for _ in range(usual):
        bench.ask(header)
    asked = bench.model.asked
    for _ in range(3):
        refusal = error(bench.ask(header, X.tobytes()))
        assert "expected one frame for each of 0 input tensors, found 1" in str(refusal)
    assert bench.model.asked == asked
    assert len(bench.ask(header).tensors) == 1


@pytest.mark.parametrize("tensors", [[], [X.tobytes()] * 2, [bytes(8)]])
def test_tensors_that_do_not_fit_are_refused_each_time_also_where_rooms_are_usual(
    bench: Bench, tensors: list[bytes]
) -> None:
    rooms = bench.region(2)
    header = asking(inline("x", X), outputs=[Y_IN_2])
    for _ in range(3):
        bench.ask(header, X.tobytes())
    asked = bench.model.asked
    view(rooms)[:] = 0
    for _ in range(3):
        assert error(bench.ask(header, *tensors)).code == "INVALID_ARGUMENT"
    assert bench.model.asked == asked
    assert bytes(rooms) == bytes(len(rooms))
    outputs(bench, header, X.tobytes())
    assert view(rooms, offset=ROOM)[:3].tolist() == [1] * 3


def test_a_lane_without_the_region_is_refused_what_is_usual_on_another(bench: Bench) -> None:
    memory = bench.region(1)
    header = asking(placed("x", X, 1))
    for _ in range(3):
        bench.ask(header)
    other = bench.loop.connect()
    for _ in range(3):
        assert "(none is), found 1" in str(error(bench.loop.ask(other, header)))
    theirs = bench.loop.share(other, 1)
    for value in range(TIMES):
        view(memory)[:3], view(theirs)[:3] = value, 100 + value
        for frame, expected in (
            (bench.ask(header), value + 1),
            (bench.loop.ask(other, header), 101 + value),
        ):
            assert np.frombuffer(frame.tensors[0], np.float32).tolist() == [expected] * 3


def test_a_model_that_raises_leaves_the_room_as_it_was(bench: Bench) -> None:
    bench.region(1)
    rooms = bench.region(2)
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])
    for _ in range(3):
        bench.ask(header)
    kept, does = bytes(rooms), bench.model.does

    def breaks(_: dict[str, Array]) -> dict[str, Array]:
        raise ValueError("broken")

    for _ in range(2):
        bench.model.does = breaks
        assert error(bench.ask(header)).code == "INTERNAL"
        assert bytes(rooms) == kept
        bench.model.does = does
        outputs(bench, header)


# --- what is kept -------------------------------------------------------------------------------


def test_a_released_region_is_unmapped_though_its_requests_were_usual(bench: Bench) -> None:
    memories = [bench.region(1), bench.region(2)]
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])
    for _ in range(TIMES):
        bench.ask(header)
    bench.assert_usual_after(1)
    assert bench.loop.mappings() == 4  # each of them twice: the peer's and the worker's
    bench.release(1)
    assert bench.loop.mappings() == 3
    bench.release(2)
    assert bench.loop.mappings() == len(memories)


@pytest.mark.parametrize(
    "end", [lambda bench: bench.peer.close(), lambda bench: bench.loop.loop.stand_by()]
)
def test_a_lane_that_ends_frees_its_memory_though_its_requests_were_usual(
    bench: Bench, end: Callable[[Bench], object]
) -> None:
    memories = [bench.region(1), bench.region(2)]
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])
    for _ in range(TIMES):
        bench.ask(header)
    end(bench)
    if bench.loop.loop.serving:
        bench.loop.loop.turn()
    assert bench.loop.mappings() == len(memories)


def test_a_lane_that_has_ended_frees_its_memory_though_somebody_still_knows_the_lane(
    bench: Bench,
) -> None:
    memory = bench.region(1)
    for _ in range(3):
        bench.ask(asking(placed("x", X, 1)))
    (link,) = bench.loop.loop._lanes.values()
    bench.peer.close()
    bench.loop.loop.turn()
    assert link.ended
    assert bench.loop.mappings() == 1
    memory.close()
    assert bench.loop.mappings() == 0


def test_what_the_model_has_kept_stays_readable_and_is_freed_with_it(bench: Bench) -> None:
    kept: list[Array] = []

    def does(asked: dict[str, Array]) -> dict[str, Array]:
        kept.append(asked["x"])
        return {"y": asked["x"] + np.float32(1)}

    bench.model.does = does
    memory = bench.region(1)
    for value in range(3):
        view(memory)[:3] = value
        bench.ask(asking(placed("x", X, 1), outputs=[Y]))
    bench.release(1)
    assert [x.tolist() for x in kept] == [[2] * 3] * len(kept)
    assert bench.loop.mappings() == 2
    kept.clear()
    assert bench.loop.mappings() == 1


def test_asking_in_shared_memory_keeps_nothing(bench: Bench) -> None:
    inputs, _ = bench.region(1), bench.region(2)
    large = np.full(ROOM, 1, np.float32)
    bench.model.does = lambda asked: {"y": large if asked["x"][0] else asked["x"] + np.float32(1)}
    header = asking(placed("x", X, 1), outputs=[Y_IN_2])

    def once() -> None:
        bench.ask(header)
        view(inputs)[0] = 1
        assert error(bench.ask(header)).code == "INVALID_ARGUMENT"
        view(inputs)[0] = 0
        bench.model.flights.clear()
        bench.model.names.clear()

    assert_keeps_nothing(once)


def test_tensors_are_encoded_as_they_always_are(bench: Bench) -> None:
    """The answers in frames and in rooms are the same bytes."""
    view(bench.region(1))[:3] = [1, np.nan, -np.inf]
    rooms = bench.region(2)
    expected = encode_tensor(np.array([2, np.nan, -np.inf], np.float32))
    for _ in range(TIMES):
        frame = bench.ask(asking(placed("x", X, 1), outputs=[Y]))
        assert bytes(frame.tensors[0]) == bytes(expected)
        bench.ask(asking(placed("x", X, 1), outputs=[Y_IN_2]))
        assert rooms[ROOM : ROOM + 12] == bytes(expected)


# --- the compiled step by itself ----------------------------------------------------------------


def step(does: Callable[[dict[str, Array]], Any], *rooms: memoryview | None) -> Any:  # noqa: ANN401
    """Let the express execute a request with inputs and outputs in these places."""
    module = compiled.loop()
    if module is None:
        pytest.skip("no compiled loop")
    near, far = socket.socketpair()
    asker, asked = LaneSocket(near), WorkerLane(far, 1)
    asker.send_frame(lane.REQUEST, b"header", [], 9)
    (frame,) = asked.receive()
    express = module.Express(FlightPage().page, WorkerFigures(), StageClock(), does)
    packings = packing_of({"x": X}), packing_of({"y": X, "z": X})
    form = (*packings, b"answer", [memoryview(bytes(12))], rooms, None)
    done = express.run(frame, asked.fd, 1, 5, 5, form, b"")
    answers = asker.receive()
    asker.close()
    asked.close()
    return done, answers


def twice(asked: dict[str, Array]) -> dict[str, Array]:
    return {"y": asked["x"] + np.float32(1), "z": asked["x"] + np.float32(2)}


def test_the_step_fills_the_rooms_and_sends_the_rest() -> None:
    memory = bytearray(b"\xee" * 16)
    ended_ns, (answer,) = step(twice, None, memoryview(memory))
    assert isinstance(ended_ns, int)
    assert (answer.request_id, bytes(answer.header)) == (9, b"answer")
    assert [np.frombuffer(one, np.float32).tolist() for one in answer.tensors] == [[1] * 3]
    assert memory == np.full(3, 2, np.float32).tobytes() + b"\xee" * 4


@pytest.mark.parametrize(
    "room", [memoryview(bytearray(16))[:8], memoryview(bytes(16)), memoryview(bytearray(0))]
)
def test_the_step_writes_nothing_where_there_is_too_little_room(room: memoryview) -> None:
    before = sys.getrefcount(room)
    (failed, given, sent, _), answers = step(twice, None, room)
    assert (failed, sent, answers) == (False, 0, [])
    assert given["z"].tolist() == [2] * 3
    assert bytes(room) == bytes(len(room))
    assert sys.getrefcount(room) == before


def test_the_step_lets_go_of_the_rooms() -> None:
    room = memoryview(bytearray(16))
    before = sys.getrefcount(room)
    for _ in range(5):
        step(twice, room, None)
    assert sys.getrefcount(room) == before
