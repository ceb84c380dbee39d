"""Spans made of records: their ids, parents and times; and collectors that are away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from superbrain.domain.records import RequestRecord, SpanRecord, StageRecord
from superbrain.host.span_export import MOST_WAITING, SpanExport, _with_path

TRACE, PARENT, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "0123456789abcdef"
RECORD = RequestRecord(
    at_ns=1_000_000,
    duration_ns=100,
    request_id="a-1",
    model="adder",
    by="worker",
    road="lane",
    version="3.0.0",
    deployment=7,
    rung="onnxruntime:cpu",
    stages=StageRecord(10, 20, 30, 40),
    span=SpanRecord(TRACE, SPAN, PARENT),
)
PATIENCE_S = 20.0


class Collector(SpanExporter):
    """Takes spans, refuses them, or hangs."""

    def __init__(self) -> None:
        self.takes = True
        self.hangs = threading.Event()
        self.hangs.set()
        self.asked = threading.Semaphore(0)
        self.shut = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.hangs.wait(PATIENCE_S)
        self.asked.release()
        return SpanExportResult.SUCCESS if self.takes else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.shut.set()
        self.hangs.set()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.hangs.set()


def exported(*records: RequestRecord) -> list[ReadableSpan]:
    memory = InMemorySpanExporter()
    export = SpanExport(memory)
    for record in records:
        export.request("worker 3", record)
    export.close(PATIENCE_S)
    return list(memory.get_finished_spans())


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent is not None else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


def test_a_request_is_a_span_with_its_stages_one_behind_the_other() -> None:
    whole, *stages = exported(RECORD)
    assert ids(whole) == (TRACE, SPAN, PARENT)
    assert (whole.name, whole.kind) == ("infer adder", SpanKind.SERVER)
    assert (whole.start_time, whole.end_time) == (1_000_000, 1_000_100)
    assert [span.name for span in stages] == ["queue", "preprocess", "engine", "postprocess"]
    assert {ids(span)[0] for span in stages} == {TRACE}
    assert {ids(span)[2] for span in stages} == {SPAN}
    assert [(span.start_time, span.end_time) for span in stages] == [
        (1_000_000, 1_000_010),
        (1_000_010, 1_000_030),
        (1_000_030, 1_000_060),
        (1_000_060, 1_000_100),
    ]
    assert whole.attributes is not None
    assert whole.attributes["superbrain.rung"] == "onnxruntime:cpu"
    assert whole.attributes["superbrain.deployment.id"] == 7
    assert whole.status.status_code is StatusCode.UNSET


def test_one_that_failed_has_its_code() -> None:
    failed = RequestRecord(
        1, 2, "a-1", "adder", "gateway", "gateway", error="NOT_FOUND", span=SpanRecord(TRACE, SPAN)
    )
    (span,) = exported(failed)
    assert ids(span) == (TRACE, SPAN, "")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "NOT_FOUND"


def test_a_record_that_is_in_no_trace_makes_no_span() -> None:
    assert exported(RequestRecord(1, 2, "a-1", "adder", "worker", "lane", logged=True)) == []


def test_a_collector_that_is_away_is_said_once_and_once_that_it_is_back(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "superbrain")
    collector.takes = False
    export = SpanExport(collector)
    for takes in (False, False, True, True):
        collector.takes = takes
        export._watched.export([])
    said = [record.superbrain_event for record in caplog.records]  # type: ignore[attr-defined]
    assert said == ["spans_not_taken", "spans_taken_again"]
    export.close(PATIENCE_S)


def test_what_waits_for_a_collector_that_hangs_has_a_bound(collector: Collector) -> None:
    collector.hangs.clear()
    export = SpanExport(collector)
    for _ in range(MOST_WAITING):
        export.request("worker 3", RECORD)
    assert export.left_out == 4 * MOST_WAITING
    collector.hangs.set()
    export.close(PATIENCE_S)


def test_the_end_waits_for_a_collector_that_hangs_no_longer_than_it_may(
    collector: Collector,
) -> None:
    collector.hangs.clear()
    export = SpanExport(collector)
    export.request("worker 3", RECORD)
    began = time.monotonic()
    export.close(0.05)
    assert time.monotonic() - began < PATIENCE_S / 2  # its own patience is half a minute
    assert collector.shut.is_set()


def test_an_exporter_that_raises_is_one_that_does_not_take_them(collector: Collector) -> None:
    def broken(spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise ValueError("an odd answer")

    collector.export = broken  # type: ignore[method-assign]
    export = SpanExport(collector)
    assert export._watched.export([]) is SpanExportResult.FAILURE
    assert export._watched.trouble
    export.close(PATIENCE_S)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://collector/otlp/traces", "https://collector/otlp/traces"),
    ],
)
def test_an_endpoint_without_a_path_gets_the_usual_one(endpoint: str, url: str) -> None:
    assert _with_path(endpoint) == url
