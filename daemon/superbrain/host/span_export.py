"""Spans of requests and deployments, by OTLP to a collector.

The processes that serve have no network, and nothing but a record to make; the spans are made here,
of records, with the times and ids that these have. OpenTelemetry's own batch processor sends them
from a thread of its own. A collector that does not take them costs nothing else: what waits for it
is bounded, what has no room is counted, and it is said once until it takes some again.

Needs the packages of the extra `otel`: this module is imported where spans are exported, and
nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

import superbrain
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from superbrain.domain.records import RequestRecord

log = logging.getLogger(__name__)

MOST_WAITING: Final = 4096
_TIMEOUT_S: Final = 5.0
_NOT_TAKEN: Final = (
    "the collector of traces.endpoint cannot be reached or does not take spans; "
    "what waits for it is dropped, and this is not said again until it takes some"
)
_TRACES_PATH: Final = "/v1/traces"
Attributes = dict[str, str | int | float]


class SpanExport:
    """Makes spans and has them sent; any thread may.

    Attributes:
        left_out: how many spans found no room.
    """

    def __init__(self, exporter: SpanExporter, process: str = "superbrain") -> None:
        # What it says of a collector that is away it would say every few seconds; see `_Watched`.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self.left_out = 0
        self._made = 0
        self._watched = _Watched(exporter)
        self._processor = BatchSpanProcessor(
            self._watched,
            max_queue_size=MOST_WAITING,
            max_export_batch_size=512,
        )
        self._ids = _GivenIds()
        self._turn = threading.Lock()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # who made the record has decided
            resource=Resource.create(_resource(process)),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("superbrain", superbrain.__version__)

    def request(self, process: str, record: RequestRecord) -> None:
        """Make the span of a request, and one of each stage within it."""
        place = record.span
        if place is None:
            return
        attributes: Attributes = {
            "superbrain.model.name": record.model,
            "superbrain.request.id": record.request_id,
            "superbrain.process": process,
            "superbrain.road": record.road,
            "network.transport": "unix",
        }
        if record.by == "worker":
            attributes["superbrain.model.version"] = record.version
            attributes["superbrain.deployment.id"] = record.deployment
            attributes["superbrain.rung"] = record.rung
        began_ns = record.at_ns
        self.span(
            f"infer {record.model}",
            (place.trace_id, place.span_id, place.parent_id),
            (began_ns, began_ns + record.duration_ns),
            attributes,
            error=record.error,
            serves=record.by == "gateway" or record.road == "lane",
        )
        if record.stages is None:
            return
        for name in ("queue", "preprocess", "engine", "postprocess"):
            took_ns = getattr(record.stages, f"{name}_ns")
            ids = (place.trace_id, "", place.span_id)
            self.span(name, ids, (began_ns, began_ns + took_ns), {})
            began_ns += took_ns

    def span(
        self,
        name: str,
        ids: tuple[str, str, str],
        times_ns: tuple[int, int],
        attributes: Attributes,
        *,
        error: str = "",
        serves: bool = False,
    ) -> None:
        """Make one span.

        Args:
            name: what it is called.
            ids: of its trace, of itself (empty: any) and of its parent (empty: it has none).
            times_ns: from when to when, in nanoseconds since 1970.
            attributes: by name.
            error: the code of what went wrong; empty when all was well.
            serves: whether it answers somebody else's question.
        """
        trace_id, span_id, parent_id = ids
        above = Context()
        if parent_id:
            above = set_span_in_context(NonRecordingSpan(_context(trace_id, parent_id)), above)
        kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
        facts = {**attributes, "error.type": error} if error else attributes
        with self._turn:  # the next span takes the ids that were told
            if self._made - self._watched.taken >= MOST_WAITING:
                self.left_out += 1
                return
            self._made += 1
            self._ids.told(trace_id, span_id)
            span = self._tracer.start_span(name, above, kind, facts, start_time=times_ns[0])
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(times_ns[1])

    def close(self, patience_s: float) -> None:
        """Send what waits, for a bounded time, and none of it to a collector that is away."""
        if self._watched.trouble:
            self._watched.exporter.shutdown()
        # Its own patience is half a minute, and a collector may hang.
        ending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(patience_s)
        if ending.is_alive():
            self._watched.exporter.shutdown()
            self._watched.closed = True


def otlp(endpoint: str, protocol: str) -> SpanExporter:
    """Give what sends spans by OTLP; what is not given is taken from OpenTelemetry's variables.

    Args:
        endpoint: the collector's URL, for HTTP with or without its path; empty: as those say.
        protocol: "http/protobuf" or "grpc".
    """
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter(endpoint=endpoint or None, timeout=_TIMEOUT_S)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter(endpoint=_with_path(endpoint) if endpoint else None, timeout=_TIMEOUT_S)


def _with_path(endpoint: str) -> str:
    host = endpoint.partition("://")[2]
    path = host.partition("/")[2]
    return endpoint if path else endpoint.rstrip("/") + _TRACES_PATH


def _resource(process: str) -> Attributes:
    """Say whose spans these are, where OpenTelemetry's variables do not."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    version: Attributes = {"service.version": superbrain.__version__}
    return version if named else {"service.name": process, **version}


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(1)
    )


class _Watched(SpanExporter):
    """Counts what another exporter takes, and says once that it does not."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.exporter = exporter
        self.taken = 0
        self.trouble = False
        self.closed = False
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Pass them on."""
        result = SpanExportResult.FAILURE
        with contextlib.suppress(Exception):  # whatever it meets, they were not taken: said below
            result = self.exporter.export(spans)
        self.taken += len(spans)
        if result is SpanExportResult.SUCCESS:
            if self.trouble:
                event(log, Event.SPANS_TAKEN_AGAIN, lost=self._lost)
            self.trouble, self._lost = False, 0
        elif not self.closed:
            self._lost += len(spans)
            if not self.trouble:
                event(log, Event.SPANS_NOT_TAKEN, logging.WARNING, _NOT_TAKEN)
            self.trouble = True
        return result

    def shutdown(self) -> None:
        """End it; what is being sent is given up."""
        self.exporter.shutdown()


class _GivenIds(RandomIdGenerator):
    """Gives the ids that it was told to give; a span's is any where none was told."""

    def __init__(self) -> None:
        self._trace_id = self._span_id = ""

    def told(self, trace_id: str, span_id: str) -> None:
        """Take the ids of the next span."""
        self._trace_id, self._span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        return int(self._trace_id, 16)

    def generate_span_id(self) -> int:
        return int(self._span_id, 16) if self._span_id else super().generate_span_id()
