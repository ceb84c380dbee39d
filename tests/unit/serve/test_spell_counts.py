"""What is executed in one spell is counted one by one: picked, timed, and not more than may be.

Each test runs with either twin; the one in Python has no spells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.domain.ctl import Load
from superbrain.domain.records import RecordPolicy
from superbrain.serve import executor
from superbrain.serve.record_keeping import Picks
from superbrain.serve.tally import ALONE, DIRECT
from superbrain.serve.worker_records import WorkerRecords
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from tests.support.tally_rows import rows_of
from tests.support.twins import twin
from tests.support.worker_loop import FAR_NS, Loop, add_one, asking, inline

__all__ = ["twin"]
X = np.zeros(2, np.float32)
HEADER = asking(inline("x", X), request_id="id")
BREAK, OTHER = -2.0, -3.0
DRAWS = [0.9, 0.5, 0.2, 0.95, 0.7, 0.0, 0.3, 0.99, 0.4, 0.6]


def does(asked: dict[str, Array]) -> dict[str, Array]:
    match float(asked["x"][0]):
        case -2.0:
            raise ValueError("broken")
        case -3.0:
            return {"y": np.zeros(5, np.float32), "z": np.zeros(1)}
    return add_one(asked)


class Bench:
    """A loop without haste, and what it is sent; three requests were answered."""

    def __init__(self, loop: Loop, *, fast: bool) -> None:
        self.loop = loop
        self.fast = fast
        loop.model.queue_size = 1000
        loop.model.does = does
        loop.serve()
        self.lanes = [loop.connect() for _ in range(3)]
        for _ in range(3):
            loop.ask(self.lanes[0], HEADER, [X.tobytes()])
        loop.at_once = loop.in_steps = 0

    def send(self, peer: LaneSocket, *values: float, kind: int = lane.REQUEST) -> None:
        """Send a request for each value, all in one."""
        deadline_ns = time.monotonic_ns() + FAR_NS
        data = b""
        for value in values:
            self.loop.number += 1
            tensors = [np.array([value, 1], "f4").tobytes()]
            buffers = lane.encode(
                kind, HEADER, tensors, request_id=self.loop.number, deadline_ns=deadline_ns
            )
            data += b"".join(map(bytes, buffers))
        peer.send((data,))

    def assert_at_once(self, count: int) -> None:
        assert self.loop.at_once == (count if self.fast else 0)

    def hear(self, peer: LaneSocket, count: int) -> list[lane.LaneFrame]:
        self.loop.settle()
        return self.loop.answers(peer, count)


@pytest.fixture
def make(twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(executor, "_QUICK_NS", FAR_NS)
    monkeypatch.setattr(executor, "TOGETHER_NS", FAR_NS)
    loops: list[Loop] = []

    def make(records: WorkerRecords | None = None) -> Bench:
        loops.append(Loop(tmp_path / "lane", monkeypatch, records))
        return Bench(loops[-1], fast=twin == "compiled")

    yield make
    for loop in loops:
        loop.close()


# --- picked -------------------------------------------------------------------------------------


def records_of(share: float) -> WorkerRecords:
    made = WorkerRecords(
        Load(7, "", "", "onnxruntime:cpu", "", records=RecordPolicy(log=True, failures_per_s=0.0))
    )
    made.picks = Picks(share, 0.0, iter(DRAWS * 100).__next__)
    return made


def picked(share: float, count: int) -> list[int]:
    picks = Picks(share, 0.0, iter(DRAWS * 100).__next__)
    return [number for number in range(1, count + 1) if picks.passed()[0]]


def told(records: WorkerRecords) -> list[int]:
    names = [record.request_id for batch in records.buffer.take() for record in batch.records]
    return [int(name.removeprefix("id-")) for name in names]


@pytest.mark.parametrize("share", [0.5, 0.3, 0.1, 0.02])
@pytest.mark.parametrize("together", [1, 2, 7, 90])
def test_of_many_that_come_together_those_are_told_that_are_picked(
    make: Callable[[WorkerRecords], Bench], share: float, together: int
) -> None:
    records = records_of(share)
    bench = make(records)
    while bench.loop.number < 190:
        bench.send(bench.lanes[0], *range(together))
        bench.hear(bench.lanes[0], together)
    assert told(records) == picked(share, bench.loop.number)


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_who_comes_by_several_lanes_is_picked_all_the_same(
    make: Callable[[WorkerRecords], Bench], share: float
) -> None:
    records = records_of(share)
    bench = make(records)
    for _ in range(20):
        for peer in bench.lanes:
            bench.send(peer, 1, 2)
        for peer in bench.lanes:
            bench.hear(peer, 2)
    assert len(told(records)) == len(picked(share, bench.loop.number))


@pytest.mark.parametrize("value", [BREAK, OTHER])
@pytest.mark.parametrize("together", [1, 3])
def test_who_fails_or_is_answered_otherwise_is_counted_once(
    make: Callable[[WorkerRecords], Bench], value: float, together: int
) -> None:
    records = records_of(0.1)
    bench = make(records)
    for _ in range(50):
        bench.send(bench.lanes[0], *([1] * (together - 1)), value)
        bench.hear(bench.lanes[0], together)
    assert told(records) == picked(0.1, bench.loop.number)


# --- timed and counted --------------------------------------------------------------------------


def test_each_of_several_has_waited_for_those_before_it(make: Callable[[], Bench]) -> None:
    bench = make()

    def spins(asked: dict[str, Array]) -> dict[str, Array]:
        end_ns = time.monotonic_ns() + 300_000
        while time.monotonic_ns() < end_ns:
            pass
        return does(asked)

    bench.loop.model.does = spins
    room = bench.loop.figures.tally.room
    before = len(rows_of(room))
    bench.send(bench.lanes[0], 1, 2, OTHER, 4)
    bench.hear(bench.lanes[0], 4)
    rows = rows_of(room)[before:]
    assert len(rows) == 4
    for n, (arrived_ns, began_ns, first_ns, engine_ns, ended_ns, _) in enumerate(rows):
        assert arrived_ns <= rows[0][0] + 200_000
        assert began_ns - arrived_ns >= n * 290_000
        assert began_ns <= first_ns <= ended_ns
        assert (engine_ns, ended_ns - began_ns >= 290_000) == (1, True)


@pytest.mark.parametrize(("kind", "flags"), [(lane.REQUEST, DIRECT | ALONE), (lane.FORWARD, ALONE)])
def test_only_what_comes_by_a_callers_lane_is_direct(
    make: Callable[[], Bench], kind: int, flags: int
) -> None:
    bench = make()
    for _ in range(4):
        bench.send(bench.lanes[0], 1, kind=kind)
        bench.hear(bench.lanes[0], 1)
    before = bench.loop.figures.pong(0)
    bench.send(bench.lanes[0], 1, 2, kind=kind)
    bench.hear(bench.lanes[0], 2)
    now = bench.loop.figures.pong(0)
    assert now.ok == before.ok + 2
    assert now.runs == before.runs + 2
    assert now.direct_requests - before.direct_requests == 2 * (kind == lane.REQUEST)
    if bench.fast:
        assert [row[-1] for row in rows_of(bench.loop.figures.tally.room)[-2:]] == [flags] * 2
        assert bench.loop.at_once >= 3


def test_more_rows_than_a_buffer_holds_are_all_counted(make: Callable[[], Bench]) -> None:
    bench = make()
    for _ in range(7):
        bench.send(bench.lanes[0], *range(90))
        bench.hear(bench.lanes[0], 90)
    told = bench.loop.figures.pong(0)
    assert told.requests == told.ok == told.runs == told.latency.count == 633


# --- not more than may be -----------------------------------------------------------------------


def test_a_spell_ends_after_so_many_and_all_are_answered(
    make: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    monkeypatch.setattr(executor, "_MOST", 5)
    for peer in bench.lanes:
        bench.send(peer, *range(4))
    bench.loop.loop.turn()
    bench.assert_at_once(5)
    for peer in bench.lanes:
        frames = bench.hear(peer, 4)
        assert [np.frombuffer(one.tensors[0], "f4")[0] for one in frames] == [1, 2, 3, 4]


def test_more_than_may_wait_is_refused_as_by_the_other_twin(make: Callable[[], Bench]) -> None:
    bench = make()
    bench.loop.model.queue_size = 4
    bench.loop.serve()
    bench.send(bench.lanes[0], *range(4))
    assert all(one.kind == lane.RESPONSE for one in bench.hear(bench.lanes[0], 4))
    bench.send(bench.lanes[0], *range(6))
    kinds = [one.kind for one in bench.hear(bench.lanes[0], 6)]
    assert sorted(kinds) == [lane.RESPONSE] * 4 + [lane.ERROR] * 2
    assert bench.loop.figures.refused == 2


def test_a_deadline_that_passes_while_another_is_executed_is_kept(
    make: Callable[[], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make()
    monkeypatch.setattr(executor, "TOGETHER_NS", 0)
    monkeypatch.setattr(executor, "_SOON_NS", 0)

    def spins(asked: dict[str, Array]) -> dict[str, Array]:
        while time.monotonic_ns() < passed_ns:
            pass
        return does(asked)

    bench.loop.model.does = spins
    passed_ns = time.monotonic_ns() + 50_000_000
    for _ in range(2):
        tensors = [np.array([1, 1], "f4").tobytes()]
        bench.loop.send(bench.lanes[0], HEADER, tensors, passed_ns)
    kinds = [one.kind for one in bench.hear(bench.lanes[0], 2)]
    assert kinds == [lane.RESPONSE, lane.ERROR]
    assert bench.loop.figures.expired == 1
    bench.assert_at_once(1)
