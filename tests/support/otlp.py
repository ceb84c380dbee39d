"""A receiver of OTLP, over HTTP and gRPC: decodes with the official messages and keeps the spans.

It is no collector: it has what the protocol asks of one, and nothing else.

>>> with Receiver() as receiver:
...     exporter = OTLPSpanExporter(receiver.url)
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.support.processes import until


class Span(NamedTuple):
    """A span as it was received."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int  # 1 internal, 2 server, 3 client
    began_ns: int
    ended_ns: int
    error: str
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Receiver:
    """Receives for as long as it is open; `spans` are all there were."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.requests = 0
        self.refuses = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        add: Any = add_TraceServiceServicer_to_server
        add(_Service(self), self._grpc)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.grpc_url = f"http://127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None).wait()

    def take(self, request: ExportTraceServiceRequest) -> bool:
        """Take an export; whether it was taken."""
        self.requests += 1
        if self.refuses:
            return False
        for one in request.resource_spans:
            resource = _attributes(one.resource.attributes)
            self.spans += [
                Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.message if span.status.code == 2 else "",
                    _attributes(span.attributes),
                    resource,
                )
                for scope in one.scope_spans
                for span in scope.spans
            ]
        return True

    def of(self, trace_id: str) -> list[Span]:
        """Give the spans of a trace, by when they began."""
        found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: (span.began_ns, -span.ended_ns))

    def root(self, name: str) -> Span:
        """Wait for a span of this name, and give the first."""
        until(lambda: any(span.name == name for span in self.spans), f"a span {name!r}")
        return next(span for span in self.spans if span.name == name)

    def wait_for(self, trace_id: str, *names: str) -> list[Span]:
        """Wait until a trace has spans of these names, as often as they are named."""

        def there() -> bool:
            found = [span.name for span in self.of(trace_id)]
            return all(found.count(name) >= names.count(name) for name in names)

        until(there, f"spans {names}, found {[span.name for span in self.of(trace_id)]}")
        return self.of(trace_id)


def _attributes(found: Any) -> dict[str, Any]:  # noqa: ANN401 - a repeated field has no type here
    return {one.key: _value(one) for one in found}


def _value(one: KeyValue) -> Any:  # noqa: ANN401
    kind = one.value.WhichOneof("value")
    return getattr(one.value, kind) if kind else None


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            request = ExportTraceServiceRequest.FromString(self.rfile.read(size))
            good = self.path == "/v1/traces" and receiver.take(request)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if good else 400)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


class _Service(TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(  # noqa: N802 - its name
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        if not self._receiver.take(request):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused")
        return ExportTraceServiceResponse()
