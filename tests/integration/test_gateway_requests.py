"""Requests through gateway and worker as real processes: what a caller asks, and is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zmq

from superbrain.wire.messages import (
    MODEL_LIST,
    MODEL_METADATA,
    MODEL_READY,
    PROTOCOL,
    SERVER_LIVE,
    SERVER_METADATA,
)
from tests.support.fake_worker import BREAK, EXIT, REFUSE
from tests.support.processes import Stage

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_req_and_dealer_clients_are_served_alike(stage: Stage, kind: int) -> None:
    stage.serving()
    with stage.client(kind) as client:
        answer = client.ask("adder", [1, 2], id="mine")
    assert answer.outputs["y"].tolist() == [2, 3]
    assert (answer.id, answer.model_version) == ("mine", "1")


def test_a_reply_finds_its_way_back_through_a_proxy(stage: Stage) -> None:
    stage.serving()
    with stage.client() as client:
        client.send_raw([b"hop", b"", PROTOCOL + SERVER_LIVE, b"{}"])
        parts = client._socket.recv_multipart()
    assert parts[:2] == [b"hop", b""]


def test_only_the_outputs_asked_for_are_sent(stage: Stage) -> None:
    stage.serving()
    with stage.client() as client:
        assert list(client.ask("adder", [1], outputs=("version",)).outputs) == ["version"]
        refused = client.ask("adder", [1], outputs=("z",))
    assert refused.code == "INVALID_ARGUMENT"


def test_large_tensors_travel_whole_in_both_directions(stage: Stage) -> None:
    stage.serving()
    values = np.arange(3_000_000, dtype=np.float32)
    with stage.client() as client:
        np.testing.assert_array_equal(client.ask("adder", values).outputs["y"], values + 1)


@pytest.mark.parametrize(
    ("value", "code", "sentence"),
    [
        (REFUSE, "INVALID_ARGUMENT", "zero or more"),
        (BREAK, "INTERNAL", "ValueError"),
        (EXIT, "INTERNAL", "SystemExit"),
    ],
)
def test_what_bundle_code_raises_ends_one_request_only(
    stage: Stage, value: float, code: str, sentence: str
) -> None:
    stage.serving()
    with stage.client() as client:
        answer = client.ask("adder", [value], id="bad")
        assert (answer.code, answer.id) == (code, "bad")
        assert sentence in str(answer.error)
        assert client.ask("adder", [1]).code == "OK"


def test_an_unknown_model_or_version_is_not_found_with_the_names_known(stage: Stage) -> None:
    stage.serving()
    with stage.client() as client:
        assert "'adder'" in str(client.ask("other", [1]).error)
        answer = client.ask("adder", [1], version="9", id="a")
        assert (answer.code, answer.id) == ("NOT_FOUND", "a")
        assert client.ask("adder", [1], version="1").code == "OK"


def test_the_gateway_answers_for_itself(stage: Stage) -> None:
    with stage.client() as client:
        assert b'"models":[]' in client.query(MODEL_LIST).raw
        stage.serving()
        assert b'"live":true' in client.query(SERVER_LIVE, b'{"id":"1"}').raw
        assert b'"name":"superbrain"' in client.query(SERVER_METADATA).raw
        assert b'"version":"1","ready":true' in client.query(MODEL_LIST).raw
        assert b'"ready":true' in client.query(MODEL_READY, b'{"model_name":"adder"}').raw
        metadata = client.query(MODEL_METADATA, b'{"model_name":"adder","id":"q\\""}')
        assert (metadata.code, metadata.id) == ("OK", 'q"')
        assert client.query(MODEL_METADATA, b'{"model_name":"no"}').code == "NOT_FOUND"
        assert client.query(MODEL_LIST, b'{"surprise":1}').code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("sent", [b"", b',"id":"q\\""'])
def test_model_metadata_carries_the_callers_id_exactly_once(stage: Stage, sent: bytes) -> None:
    stage.serving()
    with stage.client() as client:
        raw = client.query(MODEL_METADATA, b'{"model_name":"adder"' + sent + b"}").raw
    fields = json.loads(raw, object_pairs_hook=list)
    assert [value for key, value in fields if key == "id"] == ['q"' if sent else ""]
