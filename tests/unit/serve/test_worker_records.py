"""What a worker tells of requests, with either twin of its loop."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.domain.ctl import Load, MessageBuffer, Records, encode_message
from superbrain.domain.manifest import Batching
from superbrain.domain.records import RecordPolicy, RequestRecord
from superbrain.serve.execution import Outcome
from superbrain.serve.executor import Admitted, Executor
from superbrain.serve.figures import WorkerFigures
from superbrain.serve.stage_clock import StageClock
from superbrain.serve.worker_lane import WorkerLane
from superbrain.serve.worker_records import WorkerRecords
from superbrain.transport.flight import FlightPage
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import InferRequest, RequestParameters, TensorHeader
from superbrain.wire.trace_context import NOT_RECORDED
from tests.support.twins import twin

__all__ = ["twin"]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORDED = f"00-{TRACE}-{SPAN}-01"
REFUSED = -1.0


class Adder:
    name, version, runtime = "adder", "3.0.0", "test"
    outputs = ("y",)
    queue_size, request_timeout_ms = 8, 30_000
    batching = Batching()

    def __init__(self) -> None:
        self.clock = StageClock()

    def infer(self, request: dict[str, Array]) -> dict[str, Array]:
        self.clock.first_ns, self.clock.engine_ns = time.monotonic_ns(), 1
        if request["x"][0] == REFUSED:
            raise InvalidArgument(f"refused {request['x'].tolist()}")
        return {"y": request["x"] + np.float32(1)}

    answer = infer

    def bound(self) -> None:
        """Nothing is bound."""

    def infer_together(self, *_: object) -> Any:  # noqa: ANN401
        raise NotImplementedError

    prove = time = reprove = infer_together


class BatchAdder(Adder):
    batching = Batching(max_size=4)

    def bound(self) -> None:
        """Nothing is bound."""

    def infer_together(self, *asked: Any) -> Any:  # noqa: ANN401
        requests, executing = asked
        executing(range(len(requests)))
        return [self.infer(request) for request in requests]


class Desk:
    """An executor that tells of its requests, one lane, and the peer at its other end."""

    def __init__(self, policy: RecordPolicy) -> None:
        near, far = socket.socketpair()
        self.link, self.peer = WorkerLane(near, 5), LaneSocket(far)
        self.records = WorkerRecords(Load(7, "", "", "onnxruntime:cpu", "", records=policy))
        self.records.serve("adder", "3.0.0")
        figures = WorkerFigures()
        self.page = FlightPage()
        self.executor = Executor(figures, self._answer, self._post, self.page, self.records.picks)
        self.executor.serve(Adder())
        self.number = 0
        self.answered = 0

    def _answer(
        self, request: Admitted, outcome: Outcome, now_ns: int, clock: StageClock | None
    ) -> None:
        self.records.answered(request, outcome, now_ns, clock)
        self.answered += 1
        if outcome.sent:
            request.link.keep(outcome.encode(), outcome.sent)
        else:
            request.link.send(outcome.encode())

    def _post(self, link: WorkerLane, frame: bytes) -> None:
        link.send((frame,))

    def ask(
        self,
        *values: float,
        traceparent: str = "",
        kind: int = lane.REQUEST,
        deadline_ns: int = 0,
        header: bytes = b"",
    ) -> None:
        parameters = RequestParameters(traceparent=traceparent)
        tensors = [TensorHeader("x", "FP32", [len(values)])]
        header = header or msgspec.json.encode(
            InferRequest("adder", tensors, "id", parameters=parameters)
        )
        self._send(kind, header, values, deadline_ns)
        self.turn()

    def _send(
        self, kind: int, header: bytes, values: Sequence[float], deadline_ns: int = 0
    ) -> None:
        self.number += 1
        data = np.array(values, np.float32).tobytes()
        self.peer.send_frame(kind, header, [data], self.number, deadline_ns)

    def ask_together(self, *headers: bytes) -> None:
        for header in headers:
            self._send(lane.REQUEST, header, [1, 2])
        self.turn(len(headers))

    def turn(self, answers: int = 1) -> None:
        now_ns = time.monotonic_ns()
        self.executor.take([Admitted(self.link, one, now_ns) for one in self.link.receive()])
        while self.executor.waiting:
            self.executor.work()
        while answers > 0:
            self.link.flush()
            answers -= len(self.peer.receive())

    def told(self) -> list[RequestRecord]:
        self.records.finish()
        return [record for message in self.records.buffer.take() for record in message.records]

    def close(self) -> None:
        self.link.close()
        self.peer.close()


@pytest.fixture
def desk(request: pytest.FixtureRequest, twin: str) -> Iterator[Desk]:
    desk = Desk(request.param)
    yield desk
    desk.close()


def having(**policy: Any) -> pytest.MarkDecorator:  # noqa: ANN401
    return pytest.mark.parametrize("desk", [RecordPolicy(**policy)], indirect=True)


@having(log=True, log_share=1.0)
def test_a_line_says_everything_about_a_request_but_its_payload(desk: Desk) -> None:
    desk.ask(1, 2)
    (record,) = desk.told()
    assert (record.request_id, record.by, record.road) == ("id-1", "worker", "lane")
    assert (record.model, record.version, record.rung) == ("adder", "3.0.0", "onnxruntime:cpu")
    assert (record.deployment, record.error, record.logged) == (7, "", True)
    (x,), (y,) = record.inputs, record.outputs
    assert (x.name, x.datatype, x.shape, x.payload) == ("x", "FP32", [2], None)
    digest = hashlib.sha256(np.array([2, 3], np.float32).tobytes()).hexdigest()
    assert (y.name, y.datatype, y.shape, y.sha256) == ("y", "FP32", [2], digest)
    stages = record.stages
    assert stages is not None
    parts = (stages.queue_ns, stages.preprocess_ns, stages.engine_ns, stages.postprocess_ns)
    assert sum(parts) == record.duration_ns > 0
    assert abs(time.time_ns() - record.at_ns) < 60e9


@having(log=True, log_share=0.25)
def test_a_share_is_seen_however_usual_the_requests_have_become(desk: Desk) -> None:
    for _ in range(400):
        desk.ask(1, 2)
    assert 50 < len(desk.told()) < 150


@having(log=True, log_share=0.01)
def test_the_compiled_way_is_left_for_those_picked_alone(desk: Desk, twin: str) -> None:
    for _ in range(400):
        desk.ask(1, 2)
    told = len(desk.told())
    if twin == "compiled":
        assert desk.answered <= told + 3  # the first ones, before they were usual
    else:
        assert desk.answered == 400


@having(log=True, log_share=0.0, failures_per_s=3.0)
def test_those_that_fail_are_told_up_to_a_rate_and_the_others_not(desk: Desk) -> None:
    for _ in range(5):
        desk.ask(1, 2)
        desk.ask(REFUSED, 2)
    desk.records.finish()
    told = list(desk.records.buffer.take())
    errors = [record.error for message in told for record in message.records]
    assert errors == ["INVALID_ARGUMENT"] * 3
    assert sum(message.left_out for message in told) == 2


@having(log=True, log_share=0.0, traces=True)
def test_each_of_a_batch_is_told_of_by_itself(desk: Desk) -> None:
    desk.executor.serve(BatchAdder())
    headers = [
        msgspec.json.encode(
            InferRequest(
                "adder",
                [TensorHeader("x", "FP32", [2])],
                "id",
                parameters=RequestParameters(traceparent=traceparent),
            )
        )
        for traceparent in (RECORDED, "", RECORDED)
    ]
    desk.ask_together(*headers)
    told = desk.told()
    assert [record.request_id for record in told] == ["id-1", "id-3"]
    assert [record.span.parent_id for record in told if record.span] == [SPAN, SPAN]
    assert all(record.stages is not None for record in told)


@having(log=True, log_share=0.0, failures_per_s=10.0)
def test_one_that_was_never_executed_has_no_stages(desk: Desk) -> None:
    desk.ask(1, 2, deadline_ns=1)
    (record,) = desk.told()
    assert (record.error, record.stages, record.outputs) == ("DEADLINE_EXCEEDED", None, [])
    assert [x.shape for x in record.inputs] == [[2]]


@having(log=True, log_share=0.0, failures_per_s=10.0)
def test_a_header_that_cannot_be_read_is_told_of_all_the_same(desk: Desk) -> None:
    desk.ask(1, header=b"{nothing")
    (record,) = desk.told()
    assert (record.error, record.request_id, record.inputs) == ("INVALID_ARGUMENT", "-1", [])


@having(log=True, log_share=1.0, payload_bytes=12)
def test_payload_is_kept_whole_or_not_at_all(desk: Desk) -> None:
    desk.ask(1, 2, 3)
    desk.ask(1, 2, 3, 4)
    fits, too_large = desk.told()
    assert fits.inputs[0].payload == np.array([1, 2, 3], np.float32).tobytes()
    assert too_large.inputs[0].payload is None


@having(traces=True)
def test_a_recorded_trace_is_followed_however_many_come(desk: Desk) -> None:
    for number in range(5):
        desk.ask(1, 2)
        desk.ask(1, 2, traceparent=f"00-{TRACE}-{number + 1:016x}-01")
    told = desk.told()
    assert [record.span.parent_id for record in told if record.span] == [
        f"{number + 1:016x}" for number in range(5)
    ]
    assert {record.span.trace_id for record in told if record.span} == {TRACE}
    assert len({record.span.span_id for record in told if record.span}) == 5
    assert not any(record.logged for record in told)


@having(traces=True)
def test_one_that_fails_within_a_trace_is_told_with_its_code(desk: Desk) -> None:
    desk.ask(REFUSED, 2, traceparent=RECORDED)
    desk.ask(1, 2, traceparent=RECORDED, deadline_ns=1)
    assert [(record.error, record.span is not None) for record in desk.told()] == [
        ("INVALID_ARGUMENT", True),
        ("DEADLINE_EXCEEDED", True),
    ]


@having(traces=True, trace_ratio=1.0)
@pytest.mark.parametrize("traceparent", [NOT_RECORDED, f"00-{TRACE}-{SPAN}-00"])
def test_a_caller_who_does_not_record_is_followed_too(desk: Desk, traceparent: str) -> None:
    for _ in range(4):
        desk.ask(1, 2, traceparent=traceparent)
    assert desk.told() == []


@having(traces=True, trace_ratio=1.0)
@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{SPAN}-01"])
def test_without_a_valid_context_a_trace_is_begun(desk: Desk, traceparent: str) -> None:
    for _ in range(4):
        desk.ask(1, 2, traceparent=traceparent)
    spans = [record.span for record in desk.told()]
    assert len({span.trace_id for span in spans if span}) == 4
    assert all(span is not None and not span.parent_id for span in spans)


@having(traces=True, trace_ratio=1.0)
def test_what_the_gateway_passed_on_without_a_trace_begins_none(desk: Desk) -> None:
    desk.ask(1, 2, kind=lane.FORWARD)
    assert desk.told() == []


@having(log=True, log_share=1.0)
def test_the_trace_is_named_in_a_line_although_none_is_exported(desk: Desk) -> None:
    for traceparent in (RECORDED, f"00-{TRACE}-{SPAN}-00", NOT_RECORDED, "nonsense"):
        desk.ask(1, 2, traceparent=traceparent)
    assert [(record.trace_id, record.span) for record in desk.told()] == [
        (TRACE, None),
        (TRACE, None),
        ("", None),
        ("", None),
    ]


@having(traces=True)
def test_headers_of_traces_do_not_push_out_those_that_come_again(desk: Desk) -> None:
    for _ in range(3):
        desk.ask(1, 2)
    execution = desk.executor._execution
    assert execution is not None
    before = len(execution._forms), len(execution.usual)
    for number in range(300):
        desk.ask(1, 2, traceparent=f"00-{TRACE}-{number + 1:016x}-01")
    assert (len(execution._forms), len(execution.usual)) == before
    for _ in range(3):
        desk.ask(1, 2, traceparent=NOT_RECORDED)  # these are alike
    assert len(execution._forms) == before[0] + 1


@having(log=True, log_share=0.0, failures_per_s=10.0)
def test_whatever_shape_is_claimed_can_be_told(desk: Desk) -> None:
    shape = [2**70, -(2**70), *range(1000)]
    tensors = [TensorHeader("x", "FP32", shape)]
    desk.ask(1, header=msgspec.json.encode(InferRequest("adder", tensors, "id")))
    (record,) = desk.told()
    assert record.error == "INVALID_ARGUMENT"
    assert record.inputs[0].shape[:3] == [1 << 62, -1, 0]
    (told,) = MessageBuffer(msgspec.msgpack.Decoder(Records)).feed(
        encode_message(Records([record]))
    )
    assert told.records == [record]


@having(log=True, log_share=1.0)
def test_large_headers_fill_no_memory(desk: Desk) -> None:
    tensors = [TensorHeader(f"{number:0200}", "FP32", [1]) for number in range(1000)]
    header = msgspec.json.encode(InferRequest("adder", tensors, "id"))
    for _ in range(30):
        desk.ask(1, header=header)
    desk.records.finish()
    told = list(desk.records.buffer.take())
    assert sum(len(message.records) for message in told) < 15
    assert sum(message.left_out for message in told) > 15
