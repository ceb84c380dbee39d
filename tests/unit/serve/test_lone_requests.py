"""A usual request that comes alone is executed as it is received; whatever is not so goes its way.

What is executed so is answered, counted and named like all else. Each test runs with either twin:
the one in Python never executes anything so.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.domain.ctl import Load
from superbrain.domain.manifest import Batching
from superbrain.domain.records import RecordPolicy
from superbrain.serve import executor
from superbrain.serve.record_keeping import Picks
from superbrain.serve.worker_records import WorkerRecords
from superbrain.transport import compiled
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import RequestedOutput, SharedMemory, salvage_id
from tests.support.keeping import assert_keeps_nothing
from tests.support.tally_rows import rows_of
from tests.support.twins import twin
from tests.support.worker_loop import (
    FAR_NS,
    ID,
    Loop,
    add_one,
    asking,
    error,
    inline,
    placed,
    response,
)

__all__ = ["twin"]
X = np.zeros(2, np.float32)
HEADER = asking(inline("x", X))
BREAK, REFUSE, EXIT, BIG = -2.0, -3.0, -4.0, -5.0
BIG_SIZE = 1 << 22


def does(asked: dict[str, Array]) -> dict[str, Array]:
    """Add one, or do as the first element says."""
    match float(asked["x"][0]):
        case -2.0:
            raise ValueError("broken")
        case -3.0:
            raise InvalidArgument("refused")
        case -4.0:
            raise SystemExit(3)
        case -5.0:
            return {"y": np.full(BIG_SIZE, asked["x"][1], np.float32), "z": np.zeros(1)}
    return add_one(asked)


class Bench:
    """A loop, and a peer on its first lane whose requests are usual: three were answered."""

    def __init__(self, loop: Loop, *, fast: bool) -> None:
        self.loop = loop
        self.model = loop.model
        self.model.does = does
        self.fast = fast
        self.peer = loop.connect()
        self.warm_up()

    def warm_up(self) -> None:
        for value in range(3):
            self.ask(value)
        self.loop.at_once = self.loop.in_steps = 0

    def send(self, *values: float, **how: int) -> int:
        return self.loop.send(self.peer, HEADER, [np.array(values, "f4").tobytes()], **how)

    def turn(self) -> None:
        self.loop.loop.turn()

    def ask(self, value: float, other: float = 0) -> list[float]:
        frame = self.loop.ask(self.peer, HEADER, [np.array([value, other], "f4").tobytes()])
        return numbers(frame)

    def fail(self, value: float) -> str:
        frame = self.loop.ask(self.peer, HEADER, [np.array([value, 0], "f4").tobytes()])
        assert salvage_id(frame.header) == ID
        return error(frame).code

    def assert_at_once(self, count: int) -> None:
        assert self.loop.at_once == (count if self.fast else 0)


def numbers(frame: lane.LaneFrame) -> list[float]:
    """What is in an answer's `y`."""
    assert response(frame).outputs[0].name == "y"
    found: list[float] = np.frombuffer(frame.tensors[0], np.float32).tolist()
    return found


@pytest.fixture
def make(twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    loops: list[Loop] = []

    def make(records: WorkerRecords | None = None) -> Bench:
        loops.append(Loop(tmp_path / f"lane{len(loops)}", monkeypatch, records))
        return Bench(loops[-1], fast=twin == "compiled")

    yield make
    for loop in loops:
        loop.close()


@pytest.fixture
def bench(make: Callable[[], Bench]) -> Bench:
    return make()


@pytest.mark.parametrize("value", [BREAK, REFUSE, EXIT])
def test_a_request_that_fails_leaves_nothing_that_has_to_be_looked_for(
    bench: Bench, value: float
) -> None:
    """Its tensors are freed with it: a large one would not make the collector look for it."""
    bench.fail(value)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            bench.fail(value)
        assert gc.collect() == 0
    finally:
        gc.enable()


# --- executed at once ---------------------------------------------------------------------------


def test_a_lone_usual_request_is_answered_in_the_turn_it_comes_in(bench: Bench) -> None:
    for value in range(5):
        number = bench.send(value, 7)
        bench.turn()
        (frame,) = bench.peer.receive()
        assert frame.request_id == number
        assert numbers(frame) == [value + 1, 8]
    bench.assert_at_once(5)


def test_another_model_answers_from_the_next_turn_on(bench: Bench) -> None:
    assert bench.ask(1) == [2, 1]
    bench.loop.loop.stand_by()
    bench.model.version = "2"
    bench.loop.serve()
    bench.peer = bench.loop.connect()
    for _ in range(4):
        frame = bench.loop.ask(bench.peer, HEADER, [X.tobytes()])
        assert response(frame).model_version == "2"


def test_a_request_that_comes_in_two_parts_is_answered_with_the_second(bench: Bench) -> None:
    frame = b"".join(map(bytes, lane.encode(lane.REQUEST, HEADER, [X.tobytes()], request_id=50)))
    for cut in (1, 30, len(frame) - 1):
        bench.peer.send((frame[:cut],))
        bench.turn()
        assert not bench.peer.receive()
        bench.peer.send((frame[cut:],))
        bench.turn()
        (answer,) = bench.peer.receive()
        assert (answer.request_id, numbers(answer)) == (50, [1, 1])
    bench.assert_at_once(3)


def test_lanes_take_turns_and_each_gets_its_own_answers(bench: Bench) -> None:
    other = bench.loop.connect()
    for value in range(4):
        frame = bench.loop.ask(other, HEADER, [np.full(2, 10 * value, "f4").tobytes()])
        assert numbers(frame) == [10 * value + 1] * 2
        assert bench.ask(value) == [value + 1, 1]
    bench.assert_at_once(8)


@pytest.mark.parametrize(("together_ns", "at_once"), [(FAR_NS, 2), (0, 1)])
def test_a_quick_model_takes_what_two_lanes_send_as_it_comes_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, together_ns: int, at_once: int
) -> None:
    monkeypatch.setattr(executor, "_QUICK_NS", FAR_NS)
    monkeypatch.setattr(executor, "TOGETHER_NS", together_ns)
    other = bench.loop.connect()
    bench.send(1, 1)
    bench.loop.send(other, HEADER, [np.full(2, 2, "f4").tobytes()])
    bench.turn()
    assert numbers(*bench.loop.answers(bench.peer)) == [2, 2]
    assert numbers(*bench.loop.answers(other)) == [3, 3]
    bench.assert_at_once(at_once)
    bench.loop.assert_idle()


def test_where_requests_share_runs_all_lanes_are_read_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_QUICK_NS", FAR_NS)
    bench.loop.loop.stand_by()
    bench.model.batching = Batching(max_size=4)
    bench.loop.serve()
    lanes = [bench.loop.connect() for _ in range(2)]
    for _ in range(3):
        bench.loop.ask(lanes[0], HEADER, [X.tobytes()])
    bench.loop.at_once = 0
    before = bench.loop.figures.batches
    for value, peer in enumerate(lanes):
        bench.loop.send(peer, HEADER, [np.full(2, value, "f4").tobytes()])
    bench.turn()
    for value, peer in enumerate(lanes):
        assert numbers(*bench.loop.answers(peer)) == [value + 1] * 2
    bench.assert_at_once(0)
    assert bench.loop.figures.batches == before + 1


@pytest.mark.parametrize("quick_ns", [0, 1])
def test_where_runs_take_longer_all_is_read_and_the_most_urgent_goes_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, quick_ns: int
) -> None:
    monkeypatch.setattr(executor, "_QUICK_NS", quick_ns)
    bench.ask(1)
    bench.loop.at_once = 0
    order: list[float] = []

    def note(asked: dict[str, Array]) -> dict[str, Array]:
        order.append(float(asked["x"][0]))
        return add_one(asked)

    bench.model.does = note
    lanes = [bench.loop.connect() for _ in range(3)]
    for priority, peer in enumerate(lanes):
        tensor = np.full(2, priority, "f4").tobytes()
        bench.loop.send(peer, HEADER, [tensor], priority=priority)
    bench.turn()
    for priority, peer in enumerate(lanes):
        assert numbers(*bench.loop.answers(peer)) == [priority + 1] * 2
    assert order == [2, 1, 0]
    bench.assert_at_once(0)


def test_an_output_that_is_asked_for_twice_is_refused_each_time(bench: Bench) -> None:
    for outputs in ([RequestedOutput("y")] * 2, [RequestedOutput("y", SharedMemory(2, 8))] * 2):
        header = asking(inline("x", X), outputs=outputs)
        for _ in range(3):
            frame = bench.loop.ask(bench.peer, header, [X.tobytes()])
            assert "expected each requested output once, found 'y' twice" in error(frame).message


# --- counted ------------------------------------------------------------------------------------


def figures(bench: Bench) -> dict[str, Any]:
    found = bench.loop.figures
    told = found.pong(0)
    return {
        "requests": told.requests,
        "direct": (told.direct_requests, told.direct_errors),
        "ended": (told.ok, told.caller_errors, told.internal_errors),
        "others": (told.expired, told.refused, told.batches, told.queued),
        "runs": told.runs,
        "last error": told.last_error,
        "latencies": len(found.tally.totals().latest_ns),
        "durations": told.latency.count,
        "stages": {name: stage.count for name, stage in told.stages.items()},
        "idle": (found.executing_since_ns, found.executing()),
        "model": (bench.model.flights, bench.model.names),
    }


def test_it_is_counted_as_by_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(name: str) -> tuple[int, dict[str, Any]]:
        loop = Loop(tmp_path / name, monkeypatch)
        bench = Bench(loop, fast=name == "compiled")
        for value in (1, 2, BREAK, 3, REFUSE, REFUSE, EXIT, 4, 5):
            bench.send(value, 1)
            bench.turn()
            bench.loop.answers(bench.peer)
        found = figures(bench)
        loop.close()
        return loop.at_once, found

    if compiled.loop() is None:
        pytest.skip("no compiled loop")
    at_once, found = counted("compiled")
    monkeypatch.setattr(compiled, "loop", lambda: None)
    never, expected = counted("python")
    assert (at_once, never) == (9, 0)
    assert found == expected
    assert expected["ended"] == (8, 2, 2)
    assert expected["direct"] == (12, 4)


def test_its_durations_are_those_of_its_own_in_order(bench: Bench) -> None:
    tally = bench.loop.figures.tally
    before = len(rows_of(tally.room))
    for value in range(4):
        before_ns = time.monotonic_ns()
        bench.ask(value)
        arrived_ns, began_ns, first_ns, engine_ns, ended_ns, _ = rows_of(tally.room)[-1]
        assert before_ns <= arrived_ns <= began_ns <= first_ns <= ended_ns <= time.monotonic_ns()
        assert engine_ns == 1
        assert tally.totals().latest_ns[-1] == ended_ns - arrived_ns
    assert len(rows_of(tally.room)) == before + 4
    bench.assert_at_once(4)


def test_the_time_that_it_took_is_that_of_its_run(bench: Bench) -> None:
    before_s = bench.loop.figures.pong(0).executed_s

    def spins(asked: dict[str, Array]) -> dict[str, Array]:
        end_ns = time.monotonic_ns() + 2_000_000
        while time.monotonic_ns() < end_ns:
            pass
        return add_one(asked)

    bench.model.does = spins
    began_ns = time.monotonic_ns()
    for value in range(3):
        bench.ask(value)
    took_ns = time.monotonic_ns() - began_ns
    told = bench.loop.figures.pong(0)
    assert 6_000_000 <= round((told.executed_s - before_s) * 1e9) <= took_ns
    assert 2_000_000 <= round(told.longest_s * 1e9) <= took_ns


def test_the_page_and_the_figures_name_it_while_it_is_executed(bench: Bench) -> None:
    before = len(bench.model.flights)
    first = bench.loop.number + 1
    for value in (1, 2, BREAK, 3):
        bench.send(value, 1)
        bench.turn()
        bench.loop.answers(bench.peer)
        bench.loop.assert_idle()
    assert bench.model.flights[before:] == [frozenset({first + n}) for n in range(4)]
    assert bench.model.names[before:] == [[ID]] * 4
    bench.assert_at_once(4)


def test_the_page_names_the_lane_that_it_came_by(bench: Bench) -> None:
    other = bench.loop.connect()
    before = len(bench.model.flights)
    bench.loop.ask(other, HEADER, [X.tobytes()])
    assert bench.model.flights[before:] == [frozenset()]  # nothing of lane 1
    assert bench.loop.page.page[1] == 2
    bench.assert_at_once(1)


# --- what takes the other way -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left_ns", "soon_ns", "at_once"), [(0, 0, 0), (FAR_NS, 2 * FAR_NS, 0), (FAR_NS, 0, 2)]
)
def test_two_that_come_together_are_answered_in_their_order(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, left_ns: int, soon_ns: int, at_once: int
) -> None:
    monkeypatch.setattr(executor, "TOGETHER_NS", FAR_NS)
    monkeypatch.setattr(executor, "_SOON_NS", soon_ns)
    deadline_ns = time.monotonic_ns() + left_ns if left_ns else 0
    sent = [bench.send(value, 1, deadline_ns=deadline_ns) for value in (1, 2)]
    bench.turn()
    frames = bench.loop.answers(bench.peer, 2)
    assert [frame.request_id for frame in frames] == sent
    assert [numbers(frame)[0] for frame in frames] == [2, 3]
    bench.assert_at_once(at_once)


@pytest.mark.parametrize(("kind", "at_once"), [(lane.FORWARD, 2), (lane.ALONE, 0)])
def test_what_the_gateway_forwards_is_answered_with_its_own_id(
    bench: Bench, kind: int, at_once: int
) -> None:
    for turn in range(4):
        header = asking(inline("x", X), request_id=f"theirs {turn}")
        bench.loop.send(bench.peer, header, [X.tobytes()], kind=kind)
        bench.turn()
        (frame,) = bench.loop.answers(bench.peer)
        assert response(frame).id == f"theirs {turn}"
    bench.send(1, 1, kind=kind)
    bench.turn()
    assert response(*bench.loop.answers(bench.peer)).id == ID
    bench.assert_at_once(at_once)
    assert bench.loop.figures.pong(0).direct_requests == 3


def test_one_whose_deadline_has_passed_is_not_executed(bench: Bench) -> None:
    asked = bench.model.asked
    bench.send(1, 1, deadline_ns=time.monotonic_ns() - 1)
    bench.turn()
    (frame,) = bench.loop.answers(bench.peer)
    assert error(frame).code == "DEADLINE_EXCEEDED"
    assert bench.model.asked == asked
    assert bench.loop.figures.expired == 1
    bench.assert_at_once(0)
    bench.send(1, 1, deadline_ns=time.monotonic_ns() + FAR_NS)
    bench.turn()
    assert numbers(*bench.loop.answers(bench.peer)) == [2, 2]
    bench.assert_at_once(1)


@pytest.mark.parametrize(
    ("header", "tensors", "code"),
    [
        (HEADER, [], "INVALID_ARGUMENT"),
        (HEADER, [X.tobytes()] * 2, "INVALID_ARGUMENT"),
        (HEADER, [X.tobytes()[:4]], "INVALID_ARGUMENT"),
        (HEADER.replace(b"adder", b"other"), [X.tobytes()], "NOT_FOUND"),
        (b"{", [X.tobytes()], "INVALID_ARGUMENT"),
        (b"", [], "INVALID_ARGUMENT"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_next_one_is_answered(
    bench: Bench, header: bytes, tensors: list[bytes], code: str
) -> None:
    asked = bench.model.asked
    for _ in range(3):
        assert error(bench.loop.ask(bench.peer, header, tensors)).code == code
    bench.assert_at_once(0)
    assert bench.model.asked == asked
    assert bench.ask(4) == [5, 1]
    bench.assert_at_once(1)


def test_an_unusual_header_is_answered_and_becomes_usual(bench: Bench) -> None:
    large = np.arange(5, dtype=np.float32)
    header = asking(inline("x", large))
    for _ in range(5):
        assert numbers(bench.loop.ask(bench.peer, header, [large.tobytes()])) == [1, 2, 3, 4, 5]
    bench.assert_at_once(2)


def test_where_requests_wait_for_others_none_goes_at_once(bench: Bench) -> None:
    bench.model.batching = Batching(max_size=4, max_delay_ms=1, adaptive=False)
    bench.loop.serve()
    for value in range(5):
        assert bench.ask(value) == [value + 1, 1]
    sent = [bench.send(value, 1) for value in range(4)]
    bench.turn()
    frames = bench.loop.answers(bench.peer, 4)
    assert [frame.request_id for frame in frames] == sent
    assert bench.loop.figures.batched_requests == 4
    bench.assert_at_once(0)


def test_where_nothing_may_wait_all_are_refused(bench: Bench) -> None:
    bench.model.queue_size = 0
    bench.loop.serve()
    for _ in range(4):
        assert bench.fail(1) == "RESOURCE_EXHAUSTED"
    bench.assert_at_once(0)


def test_who_comes_while_others_wait_has_his_turn_behind_them(bench: Bench) -> None:
    order: list[float] = []

    def slow(asked: dict[str, Array]) -> dict[str, Array]:
        order.append(float(asked["x"][0]))
        end_ns = time.monotonic_ns() + 400_000  # no other is executed in the same turn
        while time.monotonic_ns() < end_ns:
            pass
        return add_one(asked)

    bench.model.does = slow
    for value in range(4):
        bench.send(value, 0)
    bench.turn()
    assert order == [0]
    assert bench.loop.figures.queued == 3
    bench.send(9, 0)
    bench.turn()
    assert order == [0, 1]
    frames = bench.loop.answers(bench.peer, 5)
    assert [numbers(frame)[0] for frame in frames] == [1, 2, 3, 4, 10]
    bench.assert_at_once(0)
    assert bench.ask(5) == [6, 1]
    bench.assert_at_once(1)


def test_a_full_queue_refuses_the_lone_one_too(bench: Bench) -> None:
    bench.model.queue_size = 2
    bench.loop.serve()

    def slow(asked: dict[str, Array]) -> dict[str, Array]:
        end_ns = time.monotonic_ns() + 400_000
        while time.monotonic_ns() < end_ns:
            pass
        return add_one(asked)

    bench.model.does = slow
    sent = [bench.send(value, 0) for value in range(5)]
    bench.turn()
    frames = bench.loop.answers(bench.peer, 5)
    refused = [frame.request_id for frame in frames if frame.kind == lane.ERROR]
    assert refused == sent[2:]
    assert bench.loop.figures.refused == 3


# --- records ------------------------------------------------------------------------------------


def records_of(picks: Picks | None = None, **policy: Any) -> WorkerRecords:  # noqa: ANN401
    made = WorkerRecords(
        Load(7, "", "", "onnxruntime:cpu", "", records=RecordPolicy(log=True, **policy))
    )
    if picks is not None:
        made.picks = picks
    return made


def told(records: WorkerRecords) -> list[str]:
    names: list[str] = []
    while len(records.buffer):
        for batch in records.buffer.take():
            names += [record.request_id for record in batch.records]
    return names


def test_each_that_is_picked_is_told_and_the_others_go_at_once(
    make: Callable[[WorkerRecords], Bench],
) -> None:
    draws = iter([0.9, 0.5, 0.2, 0.95, 0.7, 0.0, 0.3, 0.99] * 20)
    records = records_of(Picks(0.3, 0.0, lambda: next(draws)))
    bench = make(records)
    gaps = Picks(0.3, 0.0, iter([0.9, 0.5, 0.2, 0.95, 0.7, 0.0, 0.3, 0.99] * 20).__next__)
    picked = [number for number in range(1, 44) if gaps.passed()[0]]
    for value in range(40):
        assert bench.ask(value) == [value + 1, 1]
    assert told(records) == [f"{ID}-{number}" for number in picked]
    bench.assert_at_once(40 - sum(number > 3 for number in picked))


def test_where_all_are_told_none_goes_at_once(make: Callable[[WorkerRecords], Bench]) -> None:
    records = records_of(log_share=1.0)
    bench = make(records)
    for value in range(4):
        assert bench.ask(value) == [value + 1, 1]
    assert told(records) == [f"{ID}-{number}" for number in range(1, 8)]
    bench.assert_at_once(0)


def test_a_failure_is_told_though_it_was_executed_at_once(
    make: Callable[[WorkerRecords], Bench],
) -> None:
    records = records_of(failures_per_s=100.0)
    bench = make(records)
    bench.ask(1)
    assert bench.fail(BREAK) == "INTERNAL"
    bench.ask(1)
    assert told(records) == [f"{ID}-5"]
    bench.assert_at_once(3)


# --- models and peers that fail -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code"), [(BREAK, "INTERNAL"), (EXIT, "INTERNAL"), (REFUSE, "INVALID_ARGUMENT")]
)
def test_what_the_model_raises_is_this_ones_error_alone(
    bench: Bench, value: float, code: str
) -> None:
    for _ in range(3):
        assert bench.fail(value) == code
        assert bench.ask(1) == [2, 1]
    bench.assert_at_once(6)


def test_what_the_model_gives_wrongly_is_an_error_of_its_own(bench: Bench) -> None:
    for wrong in ({}, {"y": np.zeros(2, np.float32)}, {"y": 3, "z": 4}, None):
        bench.model.does = lambda _, wrong=wrong: wrong  # type: ignore[misc]
        assert bench.fail(1) == "INTERNAL"
        bench.model.does = does
        assert bench.ask(1) == [2, 1]
    bench.assert_at_once(8)


@pytest.mark.parametrize("times", [1, 3])
def test_an_answer_that_the_peer_takes_in_parts_arrives_whole(bench: Bench, times: int) -> None:
    for value in range(times):
        number = bench.send(BIG, value)
        bench.turn()
        (frame,) = bench.loop.answers(bench.peer)
        assert frame.request_id == number
        answer = np.frombuffer(frame.tensors[0], np.float32)
        assert answer.size == BIG_SIZE
        assert (answer == value).all()
    bench.assert_at_once(times)
    assert bench.ask(1) == [2, 1]


def test_who_asks_while_his_last_answer_is_on_its_way_gets_both_in_order(bench: Bench) -> None:
    first = bench.send(BIG, 3)
    bench.turn()
    bench.assert_at_once(1)
    second = bench.send(1, 1)
    bench.turn()
    frames = bench.loop.answers(bench.peer, 2)
    assert [frame.request_id for frame in frames] == [first, second]
    assert (np.frombuffer(frames[0].tensors[0], np.float32) == 3).all()
    assert numbers(frames[1]) == [2, 2]
    bench.assert_at_once(1)


@pytest.mark.parametrize("value", [1.0, BIG, BREAK])
def test_a_peer_that_is_gone_harms_nobody(bench: Bench, value: float) -> None:
    other = bench.loop.connect()
    bench.send(value, 1)
    bench.peer.close()
    bench.turn()
    bench.loop.assert_idle()
    bench.peer = other
    for n in range(4):
        assert bench.ask(n) == [n + 1, 1]


def test_a_peer_that_goes_during_its_request_harms_nobody(bench: Bench) -> None:
    other = bench.loop.connect()

    def closes(asked: dict[str, Array]) -> dict[str, Array]:
        bench.peer.close()
        return does(asked)

    bench.model.does = closes
    bench.send(1, 1)
    bench.turn()
    bench.assert_at_once(1)
    bench.loop.assert_idle()
    bench.model.does = does
    bench.peer = other
    assert bench.ask(1) == [2, 1]


def test_what_is_no_frame_ends_its_lane_and_no_other(bench: Bench) -> None:
    other = bench.loop.connect()
    bench.peer.send((b"\xff" * 64,))
    bench.turn()
    while not bench.peer.ended:
        assert not bench.peer.receive()
    bench.peer = other
    for value in range(4):
        assert bench.ask(value) == [value + 1, 1]


# --- descriptors --------------------------------------------------------------------------------


def descriptors() -> int:
    gc.collect()  # what other tests have left
    return len(list(Path("/proc/self/fd").iterdir()))


def test_memory_is_registered_on_a_lane_whose_requests_go_at_once(bench: Bench) -> None:
    memory = bench.loop.share(bench.peer, 1)
    header = asking(placed("x", X, 1))
    for value in range(4):
        np.frombuffer(memory, np.float32)[:2] = value
        assert numbers(bench.loop.ask(bench.peer, header)) == [value + 1] * 2
        assert bench.ask(value) == [value + 1, 1]
    bench.loop.release(bench.peer, 1)
    assert error(bench.loop.ask(bench.peer, header)).code == "INVALID_ARGUMENT"
    bench.assert_at_once(3 + 4)


def test_a_release_and_a_usual_request_that_come_together_are_both_answered(bench: Bench) -> None:
    memory = bench.loop.share(bench.peer, 1)
    np.frombuffer(memory, np.float32)[:2] = 6
    bench.peer.send_frame(lane.RELEASE, msgspec.json.encode(lane.RegionRelease(1)), [], 77)
    bench.send(1, 1)
    bench.turn()
    first, second = bench.loop.answers(bench.peer, 2)
    assert (first.kind, first.request_id) == (lane.RELEASE, 77)
    assert numbers(second) == [2, 2]


def test_a_descriptor_that_comes_with_a_usual_request_is_closed(bench: Bench) -> None:
    request = b"".join(map(bytes, lane.encode(lane.REQUEST, HEADER, [X.tobytes()], request_id=9)))
    ends = socket.socketpair()
    before = descriptors()
    for _ in range(3):
        assert bench.peer.send_descriptor(request, ends[0].fileno())
        bench.turn()
        assert numbers(*bench.loop.answers(bench.peer)) == [1, 1]
    assert descriptors() == before
    bench.assert_at_once(0)
    for end in ends:
        end.close()


def test_a_flood_of_descriptors_ends_the_lane_and_all_are_closed(bench: Bench) -> None:
    before = descriptors()
    sock = socket.socket(fileno=os.dup(bench.peer.fd))
    sent = os.open(os.devnull, os.O_RDONLY)
    socket.send_fds(sock, [b"\x07"], [sent] * 200)
    os.close(sent)
    sock.close()
    bench.turn()
    while not bench.peer.ended:
        assert not bench.peer.receive()
    assert descriptors() == before - 1  # the worker's end of the lane


# --- memory -------------------------------------------------------------------------------------


def test_execution_at_once_keeps_nothing(bench: Bench) -> None:
    def once() -> None:
        assert bench.ask(1) == [2, 1]
        assert bench.fail(REFUSE) == "INVALID_ARGUMENT"
        bench.model.flights.clear()
        bench.model.names.clear()

    assert_keeps_nothing(once)


def test_a_lane_that_ends_leaves_nothing(bench: Bench) -> None:
    def once() -> None:
        peer = bench.loop.connect()
        bench.loop.ask(peer, HEADER, [X.tobytes()])
        peer.close()
        bench.loop.peers.remove(peer)
        bench.turn()
        bench.model.flights.clear()
        bench.model.names.clear()

    before = descriptors()
    for _ in range(50):
        once()
    assert descriptors() == before
    assert isinstance(bench.peer, LaneSocket)
