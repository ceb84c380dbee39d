"""What the gateway tells of single requests: of those in a trace, and of those it refused.

A request that belongs to a recorded trace, or is picked to begin one, gets a span id here, and its
header is written anew so that the worker's span is part of it. Every other header passes untouched.
What a worker answers, well or not, is told by that worker; here the ones that never reached one.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.records import RecordPolicy, RequestRecord, SpanRecord
from superbrain.serve.record_keeping import (
    LONGEST_NAME,
    TOLD_TOGETHER,
    FailureRate,
    Picks,
    RecordBuffer,
    unix_ns,
)
from superbrain.wire import trace_context
from superbrain.wire.errors import Internal
from superbrain.wire.messages import MAX_HEADER_BYTES, UNREADABLE, decode_error
from superbrain.wire.trace_context import TraceContext

if TYPE_CHECKING:
    from superbrain.domain.ctl import ToGateway
    from superbrain.serve.ctl_channel import CtlChannel
    from superbrain.serve.directory import PendingRequest
    from superbrain.wire.errors import RequestError
    from superbrain.wire.lane import Data

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NO_PARAMETERS = msgspec.Raw(b"{}")


class GatewayRecords:
    """Makes the records of the gateway, for its one thread."""

    def __init__(self, policy: RecordPolicy, channel: CtlChannel[ToGateway]) -> None:
        self._policy = policy
        self._channel = channel
        self._buffer = RecordBuffer()
        self._picks = Picks(0.0, policy.trace_ratio, random.SystemRandom().random)
        self._failures = FailureRate(policy.failures_per_s if policy.log else 0.0)

    @property
    def traces(self) -> bool:
        """Whether any request may be in a trace that is recorded."""
        return self._policy.traces

    def trace(self, traceparent: str) -> SpanRecord | None:
        """Give a request its place in a recorded trace; None for one that is in none."""
        if not self._policy.traces:
            return None
        _, begins = self._picks.passed()
        context = trace_context.parse(traceparent) if traceparent else None
        if context is not None:
            if not context.sampled:
                return None
            return SpanRecord(context.trace_id, trace_context.new_span_id(), context.span_id)
        if not begins:
            return None
        return SpanRecord(trace_context.new_trace_id(), trace_context.new_span_id())

    def passed_on(self, model: str, request: PendingRequest, error: Data | None) -> None:
        """Tell of a request in a trace whose answer has come; `error` is the header of one."""
        code = _code(error) if error is not None else ""
        self._add(request, _record(model, request, time.monotonic_ns(), code, logged=False))

    def refused(self, model: str, request: PendingRequest, error: RequestError) -> None:
        """Tell of a request that the gateway itself answers with an error."""
        now_ns = time.monotonic_ns()
        logged = self._policy.log and self._failures.allows(now_ns)
        if self._policy.log and not logged:
            self._buffer.leave_out()
        if logged or request.span is not None:
            self._add(request, _record(model, request, now_ns, error.code, logged=logged))

    def _add(self, request: PendingRequest, record: RequestRecord) -> None:
        self._buffer.add(record, len(request.header))

    def tell_if_many(self) -> None:
        """Tell when many wait and the daemon has read all that was told: then nothing blocks."""
        if len(self._buffer) >= TOLD_TOGETHER:
            self.tell()

    def tell(self) -> None:
        """Tell some of what waits, if the daemon has read all that was told before."""
        if self._channel.unread_bytes:
            return
        message = self._buffer.take_some()
        if message is not None:
            self._channel.send(message)


def with_traceparent(header: Data, span: SpanRecord) -> bytes:
    """Write a request's header anew, as asked for by this span; it has been read before.

    One that would be too large then stays as it is, and the worker's span is beside this one.
    """
    fields = _fields(header)
    parameters = _fields(fields.get("parameters", _NO_PARAMETERS))
    text = TraceContext(span.trace_id, span.span_id).text
    parameters["traceparent"] = msgspec.Raw(_encode(text))
    fields["parameters"] = msgspec.Raw(_encode(parameters))
    written = _encode(fields)
    return written if len(written) <= MAX_HEADER_BYTES else bytes(header)


def _record(
    model: str, request: PendingRequest, now_ns: int, error: str, *, logged: bool
) -> RequestRecord:
    span = request.span
    return RequestRecord(
        at_ns=unix_ns(request.arrived_ns),
        duration_ns=now_ns - request.arrived_ns,
        request_id=request.id[:LONGEST_NAME],
        model=model[:LONGEST_NAME],
        by="gateway",
        road="gateway",
        error=error,
        logged=logged,
        trace_id=span.trace_id if span is not None else "",
        span=span,
    )


def _code(header: Data) -> str:
    try:
        return decode_error(bytes(header)).code
    except UNREADABLE:
        return Internal.code
