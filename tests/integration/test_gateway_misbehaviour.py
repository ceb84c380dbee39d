"""Callers that send what is malformed, or never read: they hinder nobody."""

from __future__ import annotations

import socket

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from superbrain.wire import lane
from superbrain.wire.messages import INFER, PROTOCOL, InferRequest, TensorHeader
from tests.support.fake_worker import BIG
from tests.support.processes import PATIENCE_S, Stage, lane_frames, until

pytestmark = pytest.mark.integration


MALFORMED: list[tuple[str, list[bytes]]] = [
    ("another protocol", [b"HTTP", b"{}"]),
    ("an empty message", [b""]),
    ("a verb alone", [PROTOCOL + INFER]),
    ("an unknown verb", [PROTOCOL + b"?", b"{}"]),
    ("no verb", [PROTOCOL, b"{}"]),
    ("no JSON", [PROTOCOL + INFER, b"\xff{"]),
    ("an empty header", [PROTOCOL + INFER, b""]),
    ("no model name", [PROTOCOL + INFER, b'{"inputs":[]}']),
    ("a huge header", [PROTOCOL + INFER, b" " * ((1 << 20) + 1)]),
    (
        "a negative timeout",
        [PROTOCOL + INFER, b'{"model_name":"adder","parameters":{"timeout_ms":-1}}'],
    ),
    (
        "a priority above all",
        [PROTOCOL + INFER, b'{"model_name":"adder","parameters":{"priority":10}}'],
    ),
    ("one below all", [PROTOCOL + INFER, b'{"model_name":"adder","parameters":{"priority":-1}}']),
    ("an id too long", [PROTOCOL + INFER, b'{"model_name":"adder","id":"%b"}' % (b"7" * 5000)]),
    ("too many frames", [PROTOCOL + INFER, b'{"model_name":"adder"}', *[b""] * 1025]),
    ("no inputs", [PROTOCOL + INFER, b'{"model_name":"adder"}']),
    ("an unknown field", [PROTOCOL + INFER, b'{"model_name":"adder","inputs":[],"x":1}']),
    (
        "a frame too few",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}',
        ],
    ),
    ("a frame too many", [PROTOCOL + INFER, b'{"model_name":"adder","inputs":[]}', b"1234"]),
    (
        "too few bytes",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}',
            b"1",
        ],
    ),
    (
        "an unknown datatype",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"BF16","shape":[1]}]}',
            b"12",
        ],
    ),
    (
        "an absurd shape",
        [
            PROTOCOL + INFER,
            b'{"model_name":"adder","inputs":[{"name":"x","datatype":"FP32","shape":[0,1e99]}]}',
            b"",
        ],
    ),
]


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_whatever_is_malformed_is_refused_and_the_next_request_served(
    stage: Stage, kind: int
) -> None:
    worker = stage.serving()
    with stage.client(kind) as client:
        for what, parts in MALFORMED:
            if kind == zmq.DEALER and parts == [b""]:
                continue  # nothing but a delimiter: there is no message
            client.send_raw(parts)
            assert client.receive().code == "INVALID_ARGUMENT", what
        assert client.ask("adder", [1]).code == "OK"
    assert stage.gateway.figures().malformed >= 8
    assert worker.figures().caller_errors >= 6


def test_a_client_that_sends_and_never_reads_hinders_nobody(stage: Stage) -> None:
    worker = stage.serving("big_mb=2")
    with stage.client(receive_watermark=1) as deaf, stage.client() as client:
        for _ in range(10):
            for _ in range(20):
                deaf.send("adder", [BIG])
            assert client.ask("adder", [1], priority=9).code == "OK"
            until(lambda: not stage.gateway.figures().models[0].outstanding, "all answered")
        assert stage.gateway.figures().models[0].requests < 200, "it was read on and on"
        for child in (worker, stage.gateway):
            assert psutil.Process(child.process.pid).memory_info().rss < 400 << 20
        assert client.ask("adder", [1]).code == "OK"


def test_a_client_that_reads_late_gets_every_answer(stage: Stage) -> None:
    stage.serving("big_mb=1", queue_size=100)
    with stage.client(receive_watermark=1) as late:
        for number in range(90):
            late.send("adder", [BIG], id=str(number))
        until(lambda: not stage.gateway.figures().models[0].outstanding, "all answered")
        assert [late.receive().id for _ in range(90)] == [str(number) for number in range(90)]
    assert stage.gateway.figures().dropped == 0


def test_a_lane_that_sends_and_never_reads_is_closed(stage: Stage) -> None:
    worker = stage.serving("big_mb=16,queue_size=64")
    request = InferRequest("adder", [TensorHeader("x", "FP32", [1])])
    header = msgspec.json.encode(request)
    frame = lane.encode(lane.REQUEST, header, [np.array([BIG], np.float32).tobytes()])
    with socket.socket(socket.AF_UNIX) as deaf, stage.client() as client:
        deaf.connect(worker.address.path)
        for _ in range(30):
            deaf.sendall(b"".join(map(bytes, frame)))
        until(lambda: worker.figures().queued == 0, "the queue worked off")
        assert client.ask("adder", [1]).code == "OK"
        assert psutil.Process(worker.process.pid).memory_info().rss < 512 << 20


def test_garbage_on_a_lane_closes_that_lane_only(stage: Stage) -> None:
    worker = stage.serving()
    with socket.socket(socket.AF_UNIX) as peer, stage.client() as client:
        peer.settimeout(PATIENCE_S)
        peer.connect(worker.address.path)
        assert lane_frames(peer, 1)[0].kind == lane.HELLO
        peer.sendall(b"\xff" * 100)
        assert peer.recv(1) == b""
        assert client.ask("adder", [1]).code == "OK"
