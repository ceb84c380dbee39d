"""Which trace a request belongs to: the one its caller names, or that of OpenTelemetry.

A program that uses OpenTelemetry has its API imported, which is how this is known: nothing is
imported here that the program has not, and without it a request costs one look-up. With it every
inference is a span of the program's own, of kind CLIENT, and what the host does is part of it.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from superbrain.wire import trace_context
from superbrain.wire.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

_API: Final = "opentelemetry.trace"
_SAMPLED: Final = 1


def in_use() -> bool:
    """Whether this program uses OpenTelemetry."""
    return _API in sys.modules


def current() -> str:
    """Give the `traceparent` of OpenTelemetry's current span; empty when there is none.

    Of a trace that is not recorded only that is told, so that the headers of requests stay alike.
    """
    api = sys.modules.get(_API)
    if api is None:
        return ""
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    if not context.trace_flags & _SAMPLED:
        return trace_context.NOT_RECORDED
    return trace_context.TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}").text


@contextmanager
def asking(model: str, traceparent: str | None) -> Iterator[str]:
    """Make a span of what is asked within; give the `traceparent` to send, empty for none.

    One that the caller names is sent as it is, and no span is made.
    """
    api: Any = sys.modules.get(_API)
    if api is None or traceparent is not None:
        yield traceparent or ""
        return
    attributes = {"superbrain.model.name": model}
    tracer = api.get_tracer("superbrain.client")
    name, kind = f"infer {model}", api.SpanKind.CLIENT
    with tracer.start_as_current_span(name, kind=kind, attributes=attributes) as span:
        try:
            yield current()
        except RequestError as error:
            span.set_attribute("error.type", error.code)
            raise
