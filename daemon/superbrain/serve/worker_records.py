"""What a worker tells of single requests: which ones, and what.

The loop asks `answered` behind every answer that takes the long way, and makes the records with
`finish`, when the turn's answers are sent: hashing outputs keeps nobody waiting but the next turn.
A request that is picked never takes the compiled way (`Executor`), which knows nothing of this.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from superbrain.domain.records import RequestRecord, SpanRecord, StageRecord, TensorRecord
from superbrain.serve.execution import called
from superbrain.serve.record_keeping import LONGEST_NAME, FailureRate, Picks, RecordBuffer, unix_ns
from superbrain.wire import lane, trace_context
from superbrain.wire.datatypes import datatype_of, encode_tensor
from superbrain.wire.messages import UNREADABLE, InferRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superbrain.domain.ctl import Load
    from superbrain.serve.execution import Outcome
    from superbrain.serve.executor import Admitted
    from superbrain.serve.stage_clock import StageClock, StageTimes
    from superbrain.wire.trace_context import TraceContext

# A shape that does not fit may be anything; what is told of it has to travel.
_LARGEST = 1 << 62
_MOST_DIMENSIONS = 32
_DESCRIBED = 4  # a tensor in a record takes so much of its description in a header
_request = msgspec.json.Decoder(InferRequest).decode


class _Noted(NamedTuple):
    """An answered request of which a record is due."""

    request: Admitted
    outcome: Outcome
    ended_ns: int
    times: StageTimes | None
    logged: bool
    trace: TraceContext | None  # the caller's
    span: SpanRecord | None


class WorkerRecords:
    """Makes the records of one worker; for its loop alone, `buffer` apart."""

    def __init__(self, load: Load) -> None:
        policy = load.records
        self.buffer = RecordBuffer()
        self.picks = Picks(
            policy.log_share if policy.log else 0.0,
            policy.trace_ratio if policy.traces else 0.0,
            random.SystemRandom().random,
        )
        self._policy = policy
        self._failures = FailureRate(policy.failures_per_s if policy.log else 0.0)
        self._deployment, self._rung = load.deployment_id, load.rung
        self._model = self._version = ""
        self._noted: list[_Noted] = []

    def serve(self, model: str, version: str) -> None:
        """Be told what is served."""
        self._model, self._version = model, version

    def answered(
        self, request: Admitted, outcome: Outcome, ended_ns: int, clock: StageClock | None
    ) -> None:
        """Note one answered request, if a record of it is due."""
        logged, begins = self.picks.passed()
        failed = outcome.error is not None
        if failed and not logged and self._policy.log:
            logged = self._failures.allows(ended_ns)
            if not logged:
                self.buffer.leave_out()
        trace = None
        if outcome.made_of is not None:
            trace = outcome.made_of[0].trace
        elif logged or self._policy.traces:  # it failed before anybody looked, perhaps
            trace = _trace_of(request.frame)
        if not (logged or begins or trace is not None):
            return
        span = self._span(trace, begins=begins and request.frame.kind == lane.REQUEST)
        if logged or span is not None:
            times = clock.times(ended_ns) if clock is not None else None
            noted = _Noted(request, outcome, ended_ns, times, logged, trace, span)
            self._noted.append(noted)

    def _span(self, trace: TraceContext | None, *, begins: bool) -> SpanRecord | None:
        """Give the place of a request in a recorded trace: its caller's decision is followed."""
        if not self._policy.traces:
            return None
        if trace is not None:
            if not trace.sampled:
                return None
            return SpanRecord(trace.trace_id, trace_context.new_span_id(), trace.span_id)
        if not begins:
            return None
        return SpanRecord(trace_context.new_trace_id(), trace_context.new_span_id())

    def finish(self) -> None:
        """Make the records that are due."""
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        for one in noted:
            record = self._record(one)
            payload = sum(len(tensor.payload or b"") for tensor in record.inputs)
            described = _DESCRIBED * len(one.request.frame.header) if record.inputs else 0
            self.buffer.add(record, payload + described)

    def _record(self, noted: _Noted) -> RequestRecord:
        request, outcome, times = noted.request, noted.outcome, noted.times
        frame, arrived_ns, error = request.frame, request.arrived_ns, outcome.error
        logged = noted.logged
        return RequestRecord(
            at_ns=unix_ns(arrived_ns),
            duration_ns=noted.ended_ns - arrived_ns,
            request_id=called(frame)[:LONGEST_NAME],
            model=self._model,
            by="worker",
            road="lane" if frame.kind == lane.REQUEST else "gateway",
            version=self._version,
            deployment=self._deployment,
            rung=self._rung,
            error=error.code if error is not None else "",
            logged=logged,
            inputs=_inputs(frame, self._policy.payload_bytes) if logged else [],
            outputs=list(_outputs(outcome)) if logged else [],
            stages=None if times is None else _stages(arrived_ns, times),
            trace_id=noted.trace.trace_id if noted.trace is not None and noted.trace.known else "",
            span=noted.span,
        )


def _stages(arrived_ns: int, times: StageTimes) -> StageRecord:
    queue_ns = times.began_ns - arrived_ns
    return StageRecord(queue_ns, times.preprocess_ns, times.engine_ns, times.postprocess_ns)


def _header(frame: lane.LaneFrame) -> InferRequest | None:
    try:
        return _request(frame.header)
    except UNREADABLE:
        return None


def _trace_of(frame: lane.LaneFrame) -> TraceContext | None:
    header = _header(frame)
    return trace_context.parse(header.parameters.traceparent) if header is not None else None


def _inputs(frame: lane.LaneFrame, payload_bytes: int) -> list[TensorRecord]:
    """Say what came in, with as many whole tensors as there is room for."""
    header = _header(frame)
    if header is None:
        return []
    frames = iter(frame.tensors)
    found: list[TensorRecord] = []
    for tensor in header.inputs:
        data = next(frames, None) if tensor.parameters is None else None
        payload = None
        if data is not None and 0 < len(data) <= payload_bytes:
            payload = bytes(data)
            payload_bytes -= len(payload)
        name, datatype = tensor.name[:LONGEST_NAME], tensor.datatype[:LONGEST_NAME]
        shape = [min(max(size, -1), _LARGEST) for size in tensor.shape[:_MOST_DIMENSIONS]]
        found.append(TensorRecord(name, datatype, shape, payload=payload))
    return found


def _outputs(outcome: Outcome) -> Iterator[TensorRecord]:
    """Say what went out."""
    if outcome.made_of is None:
        return
    form, outputs = outcome.made_of
    for name in form.wanted:
        array = outputs[name]
        digest = hashlib.sha256(encode_tensor(array)).hexdigest()
        yield TensorRecord(name, datatype_of(array), list(array.shape), digest)
