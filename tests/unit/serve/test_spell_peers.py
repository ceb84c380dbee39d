"""Peers of a spell that do not read, end, come by the dozen, or see the model fail; and its end.

Each test runs with either twin; the one in Python has no spells.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from superbrain.serve import executor, worker_loop
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument
from tests.support.twins import twin
from tests.support.worker_loop import FAR_NS, Loop, add_one, anything, asking, error, inline

__all__ = ["twin"]
FINISH_NS = worker_loop._FINISH_NS  # `Loop` has more
WIDE = np.zeros(900, np.float32)  # still written in one, as answers that wait for others are
X = np.zeros(2, np.float32)
HEADER, WIDE_HEADER = asking(inline("x", X)), asking(inline("x", WIDE))
BREAK, REFUSE, EXIT, STOP, OTHER = -2.0, -3.0, -4.0, -5.0, -6.0
FAILURES = {BREAK: "INTERNAL", EXIT: "INTERNAL", STOP: "INTERNAL", REFUSE: "INVALID_ARGUMENT"}


def does(asked: dict[str, Array]) -> dict[str, Array]:
    match float(asked["x"][0]):
        case -2.0:
            raise ValueError("broken")
        case -3.0:
            raise InvalidArgument("refused")
        case -4.0:
            raise SystemExit(3)
        case -5.0:
            raise KeyboardInterrupt
        case -6.0:
            return {"y": np.full(5, 7, np.float32), "z": np.zeros(1)}
    return add_one(asked)


class Bench:
    """A loop without haste whose model knows requests of both sizes, and two lanes of it."""

    def __init__(self, loop: Loop, *, fast: bool) -> None:
        self.loop = loop
        self.fast = fast
        self.model = loop.model
        self.model.queue_size = 1000
        self.model.does = does
        loop.serve()
        self.first, self.second = loop.connect(), loop.connect()
        for header, tensor in ((HEADER, X), (WIDE_HEADER, WIDE)):
            for _ in range(3):
                loop.ask(self.first, header, [tensor.tobytes()])
        loop.at_once = loop.in_steps = self.model.asked = 0

    def send(self, peer: LaneSocket, values: Sequence[float], *, wide: bool = False) -> list[int]:
        """Send a request for each value, all in one; give their numbers."""
        deadline_ns = time.monotonic_ns() + FAR_NS
        header, size = (WIDE_HEADER, WIDE.size) if wide else (HEADER, X.size)
        numbers, data = [], b""
        for value in values:
            self.loop.number += 1
            numbers.append(self.loop.number)
            tensors = [np.full(size, value, np.float32).tobytes()]
            buffers = lane.encode(
                lane.REQUEST, header, tensors, request_id=numbers[-1], deadline_ns=deadline_ns
            )
            data += b"".join(map(bytes, buffers))
        peer.send((data,))
        return numbers

    def tighten(self, number: int) -> None:
        """Let the kernel take little for the lane of this number that is not read."""
        (link,) = (one for one in self.loop.loop._lanes.values() if one.number == number)
        link._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    def hear(self, peer: LaneSocket, numbers: Sequence[int]) -> list[float]:
        """Give the first element of each answer; they come in this order."""
        frames = self.loop.answers(peer, len(numbers))
        assert [frame.request_id for frame in frames] == list(numbers)
        return [first_of(frame) for frame in frames]


def first_of(frame: lane.LaneFrame) -> float:
    assert frame.kind == lane.RESPONSE
    found = np.frombuffer(frame.tensors[0], np.float32)
    assert (found == found[0]).all()
    return float(found[0])


@pytest.fixture
def bench(twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(executor, "_QUICK_NS", FAR_NS)
    monkeypatch.setattr(executor, "TOGETHER_NS", FAR_NS)
    loop = Loop(tmp_path / "lane", monkeypatch)
    yield Bench(loop, fast=twin == "compiled")
    loop.close()


# --- who does not read --------------------------------------------------------------------------


@pytest.mark.parametrize("bursts", [[1] * 90, [60], [3, 1, 50, 1, 1, 9], [64, 64, 64]])
def test_what_a_peer_does_not_read_is_kept_and_comes_in_order(
    bench: Bench, bursts: list[int]
) -> None:
    bench.tighten(1)
    sent: list[int] = []
    values: list[float] = []
    for burst in bursts:
        some = [float(len(values) + n) for n in range(burst)]
        values += some
        sent += bench.send(bench.first, some, wide=True)
        for _ in range(10):
            if len(bench.model.flights) >= len(values):
                break
            bench.loop.settle()
    (link,) = (one for one in bench.loop.loop._lanes.values() if one.number == 1)
    assert link.pending_bytes > 0
    assert link.fd not in bench.loop.loop._usual
    assert bench.hear(bench.first, sent) == [value + 1 for value in values]
    assert bench.model.asked == len(values)
    bench.loop.settle()
    assert link.fd in bench.loop.loop._usual
    before = bench.loop.at_once
    assert bench.hear(bench.first, bench.send(bench.first, [5])) == [6]
    assert bench.loop.at_once == before + bench.fast


@pytest.mark.parametrize("both", [False, True])
def test_nobody_is_answered_before_all_that_came_with_his_are_executed(
    bench: Bench, *, both: bool
) -> None:
    seen: list[bool] = []

    def looks(asked: dict[str, Array]) -> dict[str, Array]:
        seen.append(anything(bench.first.fd, bench.second.fd))
        return does(asked)

    bench.model.does = looks
    first = bench.send(bench.first, [1] if both else [1, 2, 3])
    second = bench.send(bench.second, [5, 6]) if both else []
    bench.loop.settle()
    assert seen == [False] * 3
    assert len(bench.loop.answers(bench.first, len(first))) == len(first)
    assert len(bench.loop.answers(bench.second, len(second))) == len(second)


def test_who_does_not_read_keeps_nobody_waiting(bench: Bench) -> None:
    bench.tighten(1)
    kept = bench.send(bench.first, range(60), wide=True)
    other = bench.send(bench.second, [1, 2, 3])
    assert bench.hear(bench.second, other) == [2, 3, 4]
    for value in range(5):
        assert bench.hear(bench.second, bench.send(bench.second, [value])) == [value + 1]
    assert bench.hear(bench.first, kept) == [value + 1 for value in range(60)]


@pytest.mark.parametrize("last", [BREAK, OTHER])
def test_what_is_left_of_a_spell_comes_behind_what_it_kept(bench: Bench, last: float) -> None:
    bench.tighten(1)
    sent = bench.send(bench.first, [*range(40), last, 41], wide=True)
    bench.loop.settle()
    frames = bench.loop.answers(bench.first, 42)
    assert [frame.request_id for frame in frames] == sent
    assert [first_of(frame) for frame in frames[:40]] == [value + 1 for value in range(40)]
    assert frames[40].kind == (lane.ERROR if last == BREAK else lane.RESPONSE)
    assert first_of(frames[41]) == 42


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_peer_that_goes_without_reading_ends_alone(bench: Bench, count: int) -> None:
    bench.tighten(1)
    bench.send(bench.first, range(count), wide=True)
    bench.send(bench.second, [1])
    bench.first.close()
    bench.loop.settle()
    assert [link.number for link in bench.loop.loop._lanes.values()] == [2]
    assert list(bench.loop.loop._usual) == list(bench.loop.loop._lanes)
    (frame,) = bench.loop.answers(bench.second)
    assert first_of(frame) == 2
    bench.loop.assert_idle()


# --- who ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5])
def test_who_says_no_more_is_answered_and_then_ended(bench: Bench, count: int) -> None:
    sent = bench.send(bench.first, range(count)) if count else []
    half = socket.socket(fileno=os.dup(bench.first.fd))
    half.shutdown(socket.SHUT_WR)
    half.close()
    bench.loop.settle()
    if count:
        assert bench.hear(bench.first, sent) == [value + 1 for value in range(count)]
    assert not bench.first.receive()
    assert bench.first.ended
    assert [link.number for link in bench.loop.loop._lanes.values()] == [2]
    assert bench.hear(bench.second, bench.send(bench.second, [1, 2])) == [2, 3]


def test_a_frame_that_never_comes_whole_is_forgotten_with_its_lane(bench: Bench) -> None:
    frame = b"".join(map(bytes, lane.encode(lane.REQUEST, HEADER, [X.tobytes()], request_id=5)))
    bench.first.send((frame + frame[:50],))
    bench.loop.settle()
    (answer,) = bench.loop.answers(bench.first)
    assert answer.request_id == 5
    bench.first.close()
    bench.loop.settle()
    assert len(bench.loop.loop._lanes) == 1
    assert bench.model.asked == 1


def test_what_is_no_frame_behind_others_ends_the_lane_as_by_the_other_twin(bench: Bench) -> None:
    frame = b"".join(map(bytes, lane.encode(lane.REQUEST, HEADER, [X.tobytes()], request_id=5)))
    bench.first.send((frame + b"\xff" * 64,))
    numbers = bench.send(bench.second, [3])
    bench.loop.settle()
    assert not bench.first.receive()
    assert bench.first.ended
    assert bench.hear(bench.second, numbers) == [4]
    assert bench.model.asked == 1


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("whose", ["its own", "another"])
def test_a_peer_that_goes_while_his_are_executed_ends_alone(
    bench: Bench, where: int, whose: str
) -> None:
    peer, other = bench.first, bench.second
    if whose == "another":
        peer, other = other, peer

    def closes(asked: dict[str, Array]) -> dict[str, Array]:
        if asked["x"][0] == where:
            peer.close()
        return does(asked)

    bench.model.does = closes
    bench.send(bench.first, range(3))
    sent = bench.send(other, [7, 8]) if other is not bench.first else []
    bench.loop.settle()
    if other is bench.second:
        assert bench.hear(other, sent) == [8, 9]
    else:
        assert [first_of(one) for one in bench.loop.answers(other, 3)] == [1, 2, 3]
    assert len(bench.loop.loop._lanes) == 1
    bench.loop.assert_idle()


# --- many ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [64, 65, 128, 129, 300])
def test_any_number_of_requests_of_one_lane_is_answered_in_order(
    bench: Bench, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in (64, 1000):
        monkeypatch.setattr(executor, "_MOST", most)
        numbers = bench.send(bench.first, range(count))
        bench.loop.settle()
        assert bench.hear(bench.first, numbers) == [value + 1 for value in range(count)]
    assert bench.model.asked == 2 * count
    assert bench.loop.at_once >= min(count, 64) * bench.fast


def test_more_lanes_than_are_looked_at_together_are_all_answered(bench: Bench) -> None:
    peers = [bench.loop.connect() for _ in range(100)]
    sent = [bench.send(peer, [n, n + 0.5]) for n, peer in enumerate(peers)]
    for n, (peer, numbers) in enumerate(zip(peers, sent, strict=True)):
        assert bench.hear(peer, numbers) == [n + 1, n + 1.5]
    assert bench.model.asked == 200


# --- a model that fails -------------------------------------------------------------------------


@pytest.mark.parametrize("value", FAILURES)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_what_the_model_raises_is_that_ones_error_among_several(
    bench: Bench, value: float, place: int
) -> None:
    values: list[float] = [1, 2, 3]
    values.insert(place, value)
    numbers = bench.send(bench.first, values)
    others = bench.send(bench.second, [5, 6])
    bench.loop.settle()
    frames = bench.loop.answers(bench.first, 4)
    assert [frame.request_id for frame in frames] == numbers
    assert error(frames.pop(place)).code == FAILURES[value]
    assert [first_of(frame) for frame in frames] == [2, 3, 4]
    assert bench.hear(bench.second, others) == [6, 7]
    bench.loop.assert_idle()


# --- its end ------------------------------------------------------------------------------------


def goodbye(peer: LaneSocket) -> list[lane.LaneFrame]:
    """What a lane is told before its end, among which is one farewell."""
    frames: list[lane.LaneFrame] = []
    while not peer.ended:
        frames += peer.receive()
    answers = [frame for frame in frames if frame.kind != lane.GOODBYE]
    assert len(answers) == len(frames) - 1
    return answers


@pytest.mark.parametrize("count", [1, 4, 100])
def test_what_is_ready_when_it_is_told_to_stand_by_is_answered(bench: Bench, count: int) -> None:
    sent = bench.send(bench.first, range(count))
    others = bench.send(bench.second, range(count))
    bench.loop.stand_by_soon()
    bench.loop.loop.turn()
    assert not bench.loop.loop.serving
    assert bench.model.asked == 2 * count
    for peer, numbers in ((bench.first, sent), (bench.second, others)):
        frames = goodbye(peer)
        assert [frame.request_id for frame in frames] == numbers
        assert [first_of(frame) for frame in frames] == [value + 1 for value in range(count)]
    assert not bench.loop.loop._lanes
    assert not bench.loop.loop._usual
    assert bench.loop.loop.waiting == 0


def test_what_comes_from_who_knows_of_no_goodbye_yet_is_answered(bench: Bench) -> None:
    """The second is asked while the worker finishes what came before, and has said GOODBYE."""
    sent: dict[LaneSocket, list[int]] = {bench.first: [], bench.second: []}

    def tells(asked: dict[str, Array]) -> dict[str, Array]:
        bench.model.does = asks
        bench.loop.stand_by_soon()
        sent[bench.first] += bench.send(bench.first, [8])
        return does(asked)

    def asks(asked: dict[str, Array]) -> dict[str, Array]:
        bench.model.does = does
        assert not bench.loop.loop.serving
        sent[bench.second] += bench.send(bench.second, [9])
        return does(asked)

    bench.model.does = tells
    sent[bench.first] += bench.send(bench.first, [1])
    while bench.loop.loop.serving:
        bench.loop.loop.turn()
    assert bench.model.asked == 3
    for peer, values in ((bench.first, [2, 9]), (bench.second, [10])):
        frames = goodbye(peer)
        assert [frame.request_id for frame in frames] == sent[peer]
        assert [first_of(frame) for frame in frames] == values


@pytest.mark.parametrize("proven_ms", [101, 100_000])
def test_what_would_hold_up_a_swap_is_left(
    bench: Bench, proven_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_loop, "_FINISH_NS", FINISH_NS)
    bench.loop.loop._execution_ns = proven_ms * 1_000_000
    bench.send(bench.first, range(4))
    bench.send(bench.second, range(4))
    bench.loop.stand_by_soon()
    bench.loop.loop.turn()
    assert bench.model.asked == 0
    assert goodbye(bench.first) == goodbye(bench.second) == []
    assert bench.loop.loop.waiting == bench.loop.figures.queued == 0


def test_no_more_is_finished_than_there_is_time_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been begun when the time is over is answered, and nothing after it."""

    def takes_long(asked: dict[str, Array]) -> dict[str, Array]:
        monkeypatch.setattr(time, "monotonic_ns", lambda: 1 << 62)
        return does(asked)

    monkeypatch.setattr(executor, "TOGETHER_NS", 0)
    bench.model.does = takes_long
    (first, *_) = bench.send(bench.first, range(4))
    bench.loop.stand_by_soon()
    bench.loop.loop.turn()
    assert bench.model.asked == 1
    (frame,) = goodbye(bench.first)
    assert (frame.request_id, first_of(frame)) == (first, 1)


def test_what_a_peer_did_not_read_comes_before_the_farewell(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.tighten(1)
    sent = bench.send(bench.first, range(60), wide=True)
    bench.loop.settle()
    assert next(iter(bench.loop.loop._lanes.values())).pending_bytes > 0
    heard: list[lane.LaneFrame] = []
    flush = bench.loop.loop._flush

    def reads(links: list[LaneSocket]) -> None:
        for link in links:
            while link.pending_bytes:
                heard.extend(bench.first.receive())
                link.flush()
        flush(links)

    monkeypatch.setattr(bench.loop.loop, "_flush", reads)
    bench.loop.stand_by_soon()
    bench.loop.settle()
    heard += goodbye(bench.first)
    assert [frame.request_id for frame in heard] == sent
    assert [first_of(frame) for frame in heard] == [value + 1 for value in range(60)]


def test_nothing_is_kept_of_what_peers_did_not_read(bench: Bench) -> None:
    make: Callable[[], LaneSocket] = bench.loop.connect
    for number in range(3, 6):
        peer = make()
        bench.tighten(number)
        bench.send(peer, range(30), wide=True)
        bench.loop.settle()
        peer.close()
        bench.loop.settle()
    assert [link.number for link in bench.loop.loop._lanes.values()] == [1, 2]
