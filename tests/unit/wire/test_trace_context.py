"""`traceparent` by the letter of W3C Trace Context: what counts, and what is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.wire import trace_context
from superbrain.wire.trace_context import NOT_RECORDED, TraceContext, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_ids_and_the_flag_are_read() -> None:
    assert parse(f"00-{TRACE}-{SPAN}-01") == TraceContext(TRACE, SPAN, sampled=True)
    assert parse(f"00-{TRACE}-{SPAN}-00") == TraceContext(TRACE, SPAN, sampled=False)


def test_other_flags_than_the_first_are_of_no_account() -> None:
    assert parse(f"00-{TRACE}-{SPAN}-02") == TraceContext(TRACE, SPAN, sampled=False)
    assert parse(f"00-{TRACE}-{SPAN}-ff") == TraceContext(TRACE, SPAN, sampled=True)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse(f"cc-{TRACE}-{SPAN}-01-what-comes-later") == TraceContext(TRACE, SPAN)
    assert parse(f"cc-{TRACE}-{SPAN}-01") == TraceContext(TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.",
        f"cc-{TRACE}-{SPAN}-01.later",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",  # a digit, and none of these
    ],
)
def test_what_is_malformed_is_no_context(text: str) -> None:
    assert parse(text) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    found = parse(text)
    assert found is None or len(found.trace_id) == 32


def test_what_is_written_can_be_read() -> None:
    context = TraceContext(trace_context.new_trace_id(), trace_context.new_span_id())
    assert parse(context.text) == context
    assert context.known


def test_a_trace_that_is_not_recorded_has_a_text_that_says_no_more() -> None:
    context = parse(NOT_RECORDED)
    assert context is not None
    assert not context.sampled
    assert not context.known
