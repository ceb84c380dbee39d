"""Headers are decoded strictly, and errors travel as what they are."""

from __future__ import annotations

import msgspec
import pytest

from superbrain.wire import errors
from superbrain.wire.messages import (
    InferRequest,
    Routing,
    decode_error,
    decode_header,
    encode_error,
    salvage_id,
)

REQUEST = msgspec.json.Decoder(InferRequest)
ROUTING = msgspec.json.Decoder(Routing)
MINIMAL = b'{"model_name": "m", "inputs": []}'


def test_a_minimal_request_takes_the_defaults() -> None:
    request = decode_header(MINIMAL, REQUEST, "a request")
    assert request.parameters.timeout_ms == 0
    assert request.parameters.priority == 0
    assert request.outputs == []


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"model_name": "m"}',
        b'{"inputs": []}',
        b'{"model_name": 1, "inputs": []}',
        b'{"model_name": "m", "inputs": [], "surprise": 1}',
        b'{"model_name": "m", "inputs": [{"name": "x", "datatype": "FP32"}]}',
        b'{"model_name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1.5]}]}',
        b'{"model_name": "m", "inputs": [], "parameters": {"timeout_ms": -1}}',
        b'{"model_name": "m", "inputs": [], "parameters": {"timeout_ms": 1e30}}',
        b'{"model_name": "m", "inputs": [], "parameters": {"timeout_ms": 86400001}}',
        b'{"model_name": "m", "inputs": [], "parameters": {"priority": "high"}}',
    ],
)
def test_a_header_that_does_not_fit_is_refused(header: bytes) -> None:
    with pytest.raises(errors.InvalidArgument, match="expected the JSON header of a request"):
        decode_header(header, REQUEST, "a request")


def test_routing_reads_past_everything_else() -> None:
    routing = decode_header(
        b'{"inputs": [{"name": 3}], "id": "a", "model_name": "m", "other": {}}',
        ROUTING,
        "a request",
    )
    assert (routing.model_name, routing.id) == ("m", "a")


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArgument("a"),
        errors.NotFound("b", mend="c"),
        errors.Unavailable("d"),
        errors.ResourceExhausted("e"),
        errors.DeadlineExceeded("f"),
        errors.Internal("g"),
    ],
)
def test_an_error_travels_as_what_it_is(error: errors.RequestError) -> None:
    back = decode_error(encode_error(error, "id"))
    assert type(back) is type(error)
    assert (back.message, back.mend) == (error.message, error.mend)


def test_an_unknown_code_becomes_internal() -> None:
    assert isinstance(errors.error_from_code("NEW", "x"), errors.Internal)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b'{"id": "a", "inputs": 3}', "a"),
        (b'{"id": 3}', ""),
        (b"{", ""),
        (b"\xff", ""),
        (b'{"x": 1}', ""),
    ],
)
def test_the_id_is_salvaged_where_it_can_be_read(header: bytes, found: str) -> None:
    assert salvage_id(header) == found
