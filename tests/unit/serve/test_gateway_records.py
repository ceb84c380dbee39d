"""How the gateway puts a request into a trace, and what it tells."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from superbrain.domain.ctl import Records
from superbrain.domain.records import RecordPolicy, SpanRecord
from superbrain.serve.directory import PendingRequest
from superbrain.serve.gateway_records import GatewayRecords, with_traceparent
from superbrain.wire.errors import NotFound
from superbrain.wire.messages import MAX_HEADER_BYTES, InferRequest, encode_error
from superbrain.wire.trace_context import NOT_RECORDED, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORDED = f"00-{TRACE}-{SPAN}-01"


class Channel:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.unread_bytes = 0
        self.told: list[Records] = []

    def send(self, message: Records) -> None:
        self.told.append(message)


def records(**policy: Any) -> tuple[GatewayRecords, Channel]:  # noqa: ANN401
    channel: Any = Channel()
    return GatewayRecords(RecordPolicy(**policy), channel), channel


def request(span: SpanRecord | None = None) -> PendingRequest:
    envelope: Any = None
    made = PendingRequest(3, envelope, b"{}", (), id="mine", arrived_ns=1)
    made.span = span
    return made


FULL = (
    b'{"model_name": "m", "inputs": [], "id": "\\u00e9", "model_version": "1.0.0", '
    b'"outputs": [{"name": "y"}], "parameters": {"timeout_ms": 5, "traceparent": "old"}}'
)


@pytest.mark.parametrize("header", [b'{"model_name": "m", "inputs": []}', FULL])
def test_a_header_is_written_anew_with_nothing_else_changed(header: bytes) -> None:
    span = SpanRecord(TRACE, SPAN)
    before = msgspec.json.decode(header)
    after = msgspec.json.decode(with_traceparent(header, span))
    assert after.pop("parameters") == {**before.pop("parameters", {}), "traceparent": RECORDED}
    assert after == before
    msgspec.json.decode(with_traceparent(header, span), type=InferRequest)


def test_a_recorded_trace_is_followed_by_a_span_of_the_gateways_own() -> None:
    desk, _ = records(traces=True)
    span = desk.trace(RECORDED)
    assert span is not None
    assert (span.trace_id, span.parent_id) == (TRACE, SPAN)
    assert span.span_id not in {"", SPAN}


@pytest.mark.parametrize("text", ["", "nonsense", NOT_RECORDED, f"00-{TRACE}-{SPAN}-00"])
def test_no_other_is_put_into_a_trace(text: str) -> None:
    desk, _ = records(traces=True)
    assert desk.trace(text) is None


def test_a_share_begins_traces_unless_its_caller_has_decided() -> None:
    desk, _ = records(traces=True, trace_ratio=1.0)
    begun = desk.trace("")
    assert begun is not None
    assert not begun.parent_id
    assert parse(f"00-{begun.trace_id}-{begun.span_id}-01") is not None
    assert desk.trace(f"00-{TRACE}-{SPAN}-00") is None


def test_with_the_log_alone_nothing_is_put_into_a_trace() -> None:
    desk, _ = records(log=True)
    assert desk.trace(RECORDED) is None


def test_what_it_refuses_is_told_with_its_code() -> None:
    desk, channel = records(log=True, failures_per_s=1.0)
    desk.refused("nobody", request(), NotFound("no such model"))
    desk.refused("nobody", request(), NotFound("no such model"))
    desk.tell()
    (message,) = channel.told
    (record,) = message.records
    assert (record.error, record.request_id, record.by, record.logged) == (
        "NOT_FOUND",
        "mine",
        "gateway",
        True,
    )
    assert message.left_out == 1


def test_a_workers_error_is_the_spans_own() -> None:
    desk, channel = records(traces=True)
    span = SpanRecord(TRACE, SPAN)
    desk.passed_on("adder", request(span), None)
    desk.passed_on("adder", request(span), encode_error(NotFound("version")))
    desk.passed_on("adder", request(span), b"no header at all")
    desk.tell()
    assert [record.error for record in channel.told[0].records] == ["", "NOT_FOUND", "INTERNAL"]


def test_nothing_is_told_while_the_daemon_has_not_read_what_was() -> None:
    desk, channel = records(traces=True)
    channel.unread_bytes = 1
    for _ in range(100):
        desk.passed_on("adder", request(SpanRecord(TRACE, SPAN)), None)
        desk.tell_if_many()
    assert channel.told == []
    channel.unread_bytes = 0
    desk.tell_if_many()
    assert len(channel.told[0].records) == 64


def test_a_header_that_would_become_too_large_stays_as_it_is() -> None:
    header = msgspec.json.encode({"model_name": "m", "inputs": [], "id": "x" * (1 << 20)})
    header = header[: MAX_HEADER_BYTES - 2] + b'"}'
    assert len(header) == MAX_HEADER_BYTES
    assert with_traceparent(header, SpanRecord(TRACE, SPAN)) == header


def test_of_what_a_caller_chose_little_is_told() -> None:
    desk, channel = records(log=True, failures_per_s=5.0)
    asked = request()
    asked.id = "i" * 10_000
    desk.refused("m" * 10_000, asked, NotFound("no such model"))
    desk.tell()
    (record,) = channel.told[0].records
    assert (len(record.model), len(record.request_id)) == (200, 200)
