"""The id of a header apart from the rest of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.wire.messages import InferRequest, InferResponse, TensorHeader
from superbrain.wire.naming import with_id, without_id

# What json.dumps and msgspec write between quotes as it is.
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'))


def request(name: str, request_id: str) -> InferRequest:
    return InferRequest(name, [TensorHeader("x", "FP32", [1, 2])], request_id)


@given(PLAIN, PLAIN.filter(bool))
def test_ours_without_its_id_is_that_of_a_request_without_one(name: str, request_id: str) -> None:
    header = msgspec.json.encode(request(name, request_id))
    assert without_id(header) == (msgspec.json.encode(request(name, "")), request_id.encode())


@given(PLAIN.filter(bool))
def test_other_programs_write_a_space_behind_the_colon(request_id: str) -> None:
    text = {"id": request_id, "model_name": "m", "inputs": []}
    header, name = without_id(json.dumps(text, ensure_ascii=False).encode())
    assert json.loads(header) == text | {"id": ""}
    assert name.decode() == request_id


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.just("id"),
        lambda inner: st.dictionaries(st.text() | st.just("id"), inner) | st.lists(inner),
    )
)
def test_whatever_is_said_nothing_else_is_changed(value: Any) -> None:  # noqa: ANN401
    written = json.dumps({"model_name": "m", "more": value}, separators=(",", ":")).encode()
    header, name = without_id(written)
    if name:
        assert header.replace(b'"id":""', b'"id":"%b"' % name) == written
    else:
        assert header == written or b'"id":""' in written


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b'{"model_name":"m"}',
        b'{"id":7}',
        b'{"id":null}',
        b'{"id"',
        b'{"id":"without an end',
        b'{"id":"with a \\u00e9"}',
        b'{"id":"one","parameters":{"id":"another"}}',
        b'{"id":"one","id":"another"}',
        b'{"id" :"far away"}',
        b'{"inputs":[{"name":"id"}]}',
    ],
)
def test_where_it_is_not_plain_the_header_stays_as_it_is(header: bytes) -> None:
    assert without_id(header) == (header, b"")


@given(PLAIN)
def test_a_response_gets_the_id_as_if_it_had_been_made_with_it(request_id: str) -> None:
    def response(name: str) -> bytes:
        return msgspec.json.encode(InferResponse("m", "1", [TensorHeader("y", "FP32", [2])], name))

    assert with_id(response(""), request_id.encode()) == response(request_id)
