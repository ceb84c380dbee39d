"""W3C Trace Context: which trace a request belongs to, as its `traceparent` says.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version, trace id, id of the span that asks, flags (1: that span is recorded)

What is malformed is no context: whoever meets it goes on as if there were none, which is what the
specification (https://www.w3.org/TR/trace-context/, 3.2 and 4.3) demands.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

# For a request of a trace that nobody records: one text for all of them, so that their headers are
# alike, and a host does not begin a trace of its own. The ids say nothing.
NOT_RECORDED: Final = f"00-{1:032x}-{1:016x}-00"
EXTENSION: Final = "traceparent"  # as a host names it among its protocol extensions

_FIELDS: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 1


class TraceContext(NamedTuple):
    """A trace, the span in it that is meant, and whether they are recorded."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @property
    def text(self) -> str:
        """The `traceparent` that says this."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"

    @property
    def known(self) -> bool:
        """Whether the ids are some trace's, and not those of `NOT_RECORDED`."""
        return self.text != NOT_RECORDED


def parse(text: str) -> TraceContext | None:
    """Read a `traceparent`; None where it is none."""
    found = _FIELDS.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # Later versions may add fields, and nothing else; `ff` is no version.
    if (
        version == "ff"
        or (version == "00" and more)
        or trace_id == _NO_TRACE
        or span_id == _NO_SPAN
    ):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def new_trace_id() -> str:
    """Give the id of a new trace."""
    return os.urandom(16).hex()


def new_span_id() -> str:
    """Give the id of a new span."""
    return os.urandom(8).hex()
