"""A worker's executor with either twin: the same answers, figures, blame and order."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.domain.manifest import Batching
from superbrain.serve.execution import Outcome
from superbrain.serve.executor import Admitted, Executor
from superbrain.serve.figures import WorkerFigures
from superbrain.serve.stage_clock import StageClock
from superbrain.serve.worker_lane import WorkerLane
from superbrain.transport import flight
from superbrain.transport.flight import FlightPage
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import (
    InferRequest,
    InferResponse,
    TensorHeader,
    decode_error,
    salvage_id,
)
from tests.support.keeping import assert_keeps_nothing
from tests.support.twins import twin

__all__ = ["twin"]
LANE = 5
OTHER_SHAPE, BREAK, REFUSE, EXIT, BIG, TEXT = -1.0, -2.0, -3.0, -4.0, -5.0, -6.0


class Model:
    """Adds one, or does as the first element says; remembers what the flight page said then."""

    name, version, runtime = "adder", "1", "test"
    outputs = ("y",)
    queue_size, request_timeout_ms = 4, 30_000
    batching = Batching()

    def __init__(self, page: FlightPage) -> None:
        self.page = page
        self.seen: list[frozenset[int] | None] = []
        self.names: list[list[str]] = []
        self.figures: WorkerFigures | None = None
        self.clock = StageClock()

    def infer(self, request: dict[str, Array]) -> dict[str, Array]:
        self.seen.append(flight.executing(self.page.fd, LANE))
        assert self.figures is not None
        assert self.figures.executing_since_ns > 0
        self.names.append(self.figures.executing())
        x = request["x"]
        self.clock.first_ns, self.clock.engine_ns = time.monotonic_ns(), 1  # as an engine does
        match float(x[0]):
            case -1.0:
                return {"y": np.concatenate([x, x])}
            case -2.0:
                raise ValueError("broken")
            case -3.0:
                raise InvalidArgument("refused")
            case -4.0:
                raise SystemExit(3)
            case -5.0:
                return {"y": np.full(1 << 20, x[1], np.float32)}
            case -6.0:
                return {"y": np.array([b"text"], object)}
        return {"y": x + np.float32(1)}

    answer = infer

    def bound(self) -> None:
        """Nothing is bound."""

    def infer_together(self, *_: object) -> Any:  # noqa: ANN401
        raise NotImplementedError

    def prove(self) -> Any:  # noqa: ANN401
        raise NotImplementedError

    def time(self) -> Any:  # noqa: ANN401
        raise NotImplementedError

    def reprove(self, case: int) -> Any:  # noqa: ANN401
        raise NotImplementedError


class Bench:
    """An executor, one lane, and the peer at its other end.

    `kind`: of the requests. A client's on its own lane all bear the id "id"; what the gateway
    forwards bears one each.
    """

    def __init__(self) -> None:
        self.kind = lane.REQUEST
        near, far = socket.socketpair()
        self.link = WorkerLane(near, LANE)
        self.peer = LaneSocket(far)
        self.page = FlightPage()
        self.figures = WorkerFigures()
        self.executor = Executor(self.figures, self._answer, self._post, self.page)
        self.model = Model(self.page)
        self.model.figures = self.figures
        self.executor.serve(self.model)
        self.number = 0

    def _answer(
        self, request: Admitted, outcome: Outcome, now_ns: int, clock: StageClock | None
    ) -> None:
        direct = request.frame.kind == lane.REQUEST
        self.figures.finished(outcome.error, request.arrived_ns, now_ns, clock, direct=direct)
        if outcome.sent:
            request.link.keep(outcome.encode(), outcome.sent)
        else:
            request.link.send(outcome.encode())

    def _post(self, link: WorkerLane, frame: bytes) -> None:
        link.send((frame,))

    def send(self, *values: float, deadline_ns: int = 0, priority: int = 0) -> int:
        self.number += 1
        header = msgspec.json.encode(
            InferRequest("adder", [TensorHeader("x", "FP32", [len(values)])], self.id)
        )
        tensor = np.array(values, np.float32).tobytes()
        self.peer.send_frame(
            self.kind, header, [tensor], self.number, deadline_ns, priority=priority
        )
        return self.number

    @property
    def id(self) -> str:
        """The last request's."""
        return "id" if self.kind == lane.REQUEST else f"naïve {self.number}"

    def turn(self) -> None:
        now_ns = time.monotonic_ns()
        arrived = [Admitted(self.link, frame, now_ns) for frame in self.link.receive()]
        if arrived:
            self.executor.take(arrived)
        while self.executor.waiting:
            self.executor.work()

    def answers(self, count: int = 1) -> list[lane.LaneFrame]:
        frames: list[lane.LaneFrame] = []
        while len(frames) < count:
            self.link.flush()
            frames += self.peer.receive()
        return frames

    def ask(self, *values: float) -> Any:  # noqa: ANN401
        """The array that comes back, or the error."""
        number = self.send(*values)
        self.turn()
        (frame,) = self.answers()
        assert frame.request_id == number
        assert self.page.page[0] == 0
        assert self.figures.executing_since_ns == 0
        if frame.kind == lane.ERROR:
            return decode_error(frame.header)
        header = msgspec.json.decode(frame.header, type=InferResponse)
        assert (header.model_name, header.model_version, header.id) == ("adder", "1", self.id)
        dtype = np.float32 if header.outputs[0].datatype == "FP32" else np.uint8
        return np.frombuffer(frame.tensors[0], dtype)

    def close(self) -> None:
        self.link.close()
        self.peer.close()


@pytest.fixture
def bench(twin: str) -> Iterator[Bench]:
    assert twin
    bench = Bench()
    yield bench
    bench.close()


def test_requests_alike_are_answered_each_by_its_own(bench: Bench) -> None:
    for value in range(8):
        np.testing.assert_array_equal(bench.ask(value, 2), [value + 1, 3])
    for value in range(8):
        np.testing.assert_array_equal(bench.ask(value), [value + 1])
    told = bench.figures.pong(0)
    assert told.ok == told.direct_requests == told.runs == 16


def test_requests_that_the_gateway_forwards_are_answered_each_with_its_own_id(
    bench: Bench,
) -> None:
    bench.kind = lane.FORWARD
    for value in range(8):
        np.testing.assert_array_equal(bench.ask(value, 2), [value + 1, 3])
    assert bench.ask(BREAK, 2).code == "INTERNAL"
    np.testing.assert_array_equal(bench.ask(OTHER_SHAPE, 5), [-1, 5, -1, 5])
    np.testing.assert_array_equal(bench.ask(1, 5), [2, 6])
    bench.kind = lane.REQUEST
    np.testing.assert_array_equal(bench.ask(1, 5), [2, 6])
    bench.kind = lane.ALONE
    np.testing.assert_array_equal(bench.ask(1, 5), [2, 6])

    told = bench.figures.pong(0)
    assert (told.direct_requests, told.ok) == (1, 12)
    names = [[f"naïve {number}"] for number in range(1, 12)]
    assert bench.model.names == [*names, ["id"], ["naïve 13"]]


def test_an_error_bears_the_id_of_its_request(bench: Bench) -> None:
    bench.kind = lane.FORWARD
    for value in (1, 1, 1, REFUSE):
        bench.send(value)
        bench.turn()
        (frame,) = bench.answers()
        assert salvage_id(frame.header) == bench.id


def test_every_answer_leaves_its_stage_times_and_they_add_up(bench: Bench) -> None:
    for value in range(6):
        bench.ask(value)
    whole, stages = bench.figures.tally.totals().histograms()
    assert sum(whole.counts) == 6
    assert {name: sum(stage.counts) for name, stage in stages.items()} == dict.fromkeys(stages, 6)
    assert sum(stage.sum_ns for stage in stages.values()) == whole.sum_ns > 0
    assert stages["engine"].sum_ns > 0


def test_those_that_come_together_are_answered_in_their_order(bench: Bench) -> None:
    for _ in range(4):
        bench.ask(1)
    soon_ns = time.monotonic_ns() + 60_000_000_000
    numbers = [bench.send(value, deadline_ns=soon_ns) for value in range(4)]
    bench.turn()
    frames = bench.answers(4)
    assert [frame.request_id for frame in frames] == numbers
    values = [np.frombuffer(frame.tensors[0], np.float32)[0] for frame in frames]
    assert values == [1, 2, 3, 4]
    assert bench.figures.pong(0).ok == 8


def test_the_flight_page_names_every_request_while_it_is_executed(bench: Bench) -> None:
    for value in range(6):
        bench.ask(value)
    assert bench.model.seen == [frozenset({number}) for number in range(1, 7)]
    assert bench.model.names == [["id"]] * 6


@pytest.mark.parametrize("value", [BREAK, EXIT])
def test_what_the_model_raises_is_the_error_of_this_request_alone(
    bench: Bench, value: float
) -> None:
    for _ in range(4):
        bench.ask(1)
    for _ in range(3):
        assert bench.ask(value).code == "INTERNAL"
        np.testing.assert_array_equal(bench.ask(1), [2])
    assert bench.ask(REFUSE).code == "INVALID_ARGUMENT"
    told = bench.figures.pong(0)
    assert (told.ok, told.internal_errors, told.caller_errors) == (7, 3, 1)


def test_an_answer_of_another_shape_or_kind_than_the_last_is_described_as_it_is(
    bench: Bench,
) -> None:
    for _ in range(4):
        bench.ask(1, 5)
    for _ in range(3):
        np.testing.assert_array_equal(bench.ask(OTHER_SHAPE, 5), [-1, 5, -1, 5])
        np.testing.assert_array_equal(bench.ask(1, 5), [2, 6])
        assert bytes(bench.ask(TEXT, 5)) == b"\4\0\0\0text"


def test_an_answer_that_the_peer_does_not_take_at_once_arrives_whole(bench: Bench) -> None:
    for value in range(5):
        answer = bench.ask(BIG, value)
        assert answer.size == 1 << 20
        assert (answer == value).all()


def test_the_more_urgent_goes_first_and_the_overdue_is_not_executed(bench: Bench) -> None:
    for _ in range(4):
        bench.ask(1)
    before = len(bench.model.seen)
    first, late, urgent = bench.send(1), bench.send(1, deadline_ns=1), bench.send(1, priority=3)
    bench.turn()
    bench.answers(3)
    assert bench.model.seen[before:] == [frozenset({urgent}), frozenset({first})]
    assert bench.figures.expired == 1
    assert late == first + 1


def test_a_lone_request_that_is_overdue_is_not_executed(bench: Bench) -> None:
    for _ in range(4):
        bench.ask(1)
    before = len(bench.model.seen)
    bench.send(1, deadline_ns=1)
    bench.turn()
    assert bench.answers()[0].kind == lane.ERROR
    assert len(bench.model.seen) == before


def test_more_than_may_wait_are_refused(bench: Bench) -> None:
    for _ in range(4):
        bench.ask(1)
    for _ in range(7):
        bench.send(1)
    bench.turn()
    kinds = [frame.kind for frame in bench.answers(7)]
    assert kinds.count(lane.ERROR) == bench.figures.refused == 3


def test_nobody_executes_for_a_peer_that_is_gone(bench: Bench) -> None:
    for _ in range(4):
        bench.ask(1)
    before = len(bench.model.seen)
    bench.send(1)
    arrived = [Admitted(bench.link, frame, time.monotonic_ns()) for frame in bench.link.receive()]
    bench.link.close()
    bench.executor.take(arrived)
    assert len(bench.model.seen) == before


def test_execution_keeps_nothing(bench: Bench) -> None:
    def once() -> None:
        bench.ask(1, 5)
        bench.ask(REFUSE, 5)
        bench.ask(OTHER_SHAPE, 5)
        bench.model.seen.clear()
        bench.model.names.clear()

    assert_keeps_nothing(once)
