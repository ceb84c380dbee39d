"""The trace that a request is put into: its caller's, or that of the program's OpenTelemetry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from superbrain.client import calls, tracing
from superbrain.client.calls import Call
from superbrain.client.conversation import Conversation, Inference, Interfaces
from superbrain.client.result import Result
from superbrain.wire.errors import InvalidArgument, NotFound
from superbrain.wire.messages import INFER, SERVER_METADATA, InferRequest, ServerMetadata
from superbrain.wire.trace_context import EXTENSION, NOT_RECORDED, parse

RECORDED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RESULT = Result("m", "1", {})
X = {"x": np.zeros(1, np.float32)}


class Program:
    """A program that uses OpenTelemetry, of which `asking` takes its tracer."""

    def __init__(self) -> None:
        self.memory = InMemorySpanExporter()
        self.providers = [TracerProvider(sampler=ALWAYS_ON), TracerProvider(sampler=ALWAYS_OFF)]
        self.recording = True
        for provider in self.providers:
            provider.add_span_processor(SimpleSpanProcessor(self.memory))

    def tracer(self, name: str) -> trace.Tracer:
        return self.providers[0 if self.recording else 1].get_tracer(name)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    program = Program()
    monkeypatch.setattr(trace, "get_tracer", program.tracer)
    yield program
    for provider in program.providers:
        provider.shutdown()


def test_the_client_imports_nothing_of_opentelemetry_by_itself() -> None:
    code = (
        "import sys; from superbrain.client import Client, AsyncClient, tracing; "
        "assert not tracing.in_use() and tracing.current() == ''; "
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_program_without_a_provider_is_in_no_trace() -> None:
    with tracing.asking("m", None) as text:
        assert text == ""


def test_the_current_span_is_the_one_that_asks(program: Program) -> None:
    with program.tracer("mine").start_as_current_span("mine") as span:
        context = span.get_span_context()
        found = parse(tracing.current())
    assert found is not None
    assert (int(found.trace_id, 16), int(found.span_id, 16)) == (context.trace_id, context.span_id)
    assert found.sampled


def test_of_a_trace_that_is_not_recorded_only_that_is_told(program: Program) -> None:
    program.recording = False
    with program.tracer("mine").start_as_current_span("mine"):
        assert tracing.current() == NOT_RECORDED


def test_an_inference_is_a_span_within_the_programs_own(program: Program) -> None:
    with program.tracer("mine").start_as_current_span("mine"), tracing.asking("m", None) as text:
        pass
    asked, mine = program.memory.get_finished_spans()
    assert (asked.name, asked.kind) == ("infer m", trace.SpanKind.CLIENT)
    assert asked.parent is not None
    assert asked.parent.span_id == mine.context.span_id
    found = parse(text)
    assert found is not None
    assert int(found.span_id, 16) == asked.context.span_id


def test_one_that_fails_has_the_code_of_its_error(program: Program) -> None:
    with pytest.raises(NotFound), tracing.asking("m", None):
        raise NotFound("no such model")
    (span,) = program.memory.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "NOT_FOUND"
    assert span.status.status_code is trace.StatusCode.ERROR


def test_a_trace_that_the_caller_names_is_sent_as_it_is(program: Program) -> None:
    for text in (RECORDED, "nonsense", ""):
        with tracing.asking("m", text) as sent:
            assert sent == text
    assert program.memory.get_finished_spans() == ()


# --- headers --------------------------------------------------------------------------------------


def header(traceparent: str, timeout_ms: int = 0) -> bytes:
    return calls.infer("m", X, traceparent=traceparent).header("id", timeout_ms, False)


def test_it_is_a_parameter_of_the_request_and_not_there_without_a_trace() -> None:
    assert json.loads(header(RECORDED))["parameters"] == {"traceparent": RECORDED}
    assert json.loads(header(RECORDED, 5))["parameters"]["timeout_ms"] == 5
    assert b"traceparent" not in header("")


def test_headers_of_traces_are_not_remembered_but_those_without_ids_are() -> None:
    before = calls._written.cache_info().currsize
    for number in range(1, 10):
        header(f"00-{number:032x}-00f067aa0ba902b7-01")
    assert calls._written.cache_info().currsize == before
    assert header(NOT_RECORDED) is header(NOT_RECORDED)


# --- hosts ----------------------------------------------------------------------------------------


def server(*extensions: str) -> ServerMetadata:
    return ServerMetadata("superbrain", "1", list(extensions))


def play(talk: Conversation[Any], *answers: object) -> tuple[Any, list[Call[Any]]]:
    asked: list[Any] = []
    script = list(answers)
    try:
        step = next(talk)
        while True:
            asked.append(step)
            answer = script.pop(0)
            step = talk.throw(answer) if isinstance(answer, Exception) else talk.send(answer)
    except StopIteration as end:
        assert not script
        return end.value, asked


def sent(call: Call[Any]) -> str:
    return msgspec.json.decode(
        call.header("id", 0, False), type=InferRequest
    ).parameters.traceparent


def test_a_host_is_asked_once_whether_it_takes_traces() -> None:
    hosts = Interfaces()
    wanted = Inference("m", X, traceparent=RECORDED)
    result, asked = play(hosts.infer(wanted), server(EXTENSION), RESULT)
    assert result is RESULT
    assert [call.verb for call in asked] == [SERVER_METADATA, INFER]
    assert sent(asked[1]) == RECORDED
    _, asked = play(hosts.infer(wanted), RESULT)
    assert [call.verb for call in asked] == [INFER]


def test_one_before_traces_gets_none_and_answers() -> None:
    hosts = Interfaces()
    wanted = Inference("m", X, traceparent=RECORDED)
    _, asked = play(hosts.infer(wanted), server("lanes"), RESULT)
    assert sent(asked[1]) == ""
    _, asked = play(hosts.infer(wanted), RESULT)
    assert sent(asked[0]) == ""


def test_nobody_is_asked_where_there_is_no_trace() -> None:
    _, asked = play(Interfaces().infer(Inference("m", X)), RESULT)
    assert [call.verb for call in asked] == [INFER]


def test_a_host_that_was_replaced_by_an_older_one_is_asked_again() -> None:
    hosts = Interfaces()
    wanted = Inference("m", X, traceparent=RECORDED)
    play(hosts.infer(wanted), server(EXTENSION), RESULT)
    refused = InvalidArgument("Object contains unknown field `traceparent`")
    result, asked = play(hosts.infer(wanted), refused, server("lanes"), RESULT)
    assert result is RESULT
    assert [call.verb for call in asked] == [INFER, SERVER_METADATA, INFER]
    assert sent(asked[2]) == ""


def test_a_request_that_is_wrong_by_itself_is_refused_all_the_same() -> None:
    hosts = Interfaces()
    talk = hosts.infer(Inference("m", X, traceparent=RECORDED))
    with pytest.raises(InvalidArgument):
        play(talk, server(EXTENSION), InvalidArgument("a shape"), server(EXTENSION))
