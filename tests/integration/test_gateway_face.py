"""The gateway's public socket against libzmq in all its moods, and against what is no ZeroMQ."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from superbrain.wire import zmtp
from superbrain.wire.messages import INFER, MAX_MESSAGE_BYTES, PROTOCOL, RESULT, SERVER_LIVE
from tests.support.processes import PATIENCE_S, Answer, Stage, until

HELLO = zmtp.GREETING + zmtp.encode_command(b"READY", b"\x0bSocket-Type\0\0\0\3REQ")


def connected(stage: Stage) -> socket.socket:
    plain = socket.socket(socket.AF_UNIX)
    plain.settimeout(PATIENCE_S)
    plain.connect(stage.endpoint.removeprefix("ipc://"))
    return plain


def encoded(*frames: bytes) -> bytes:
    return b"".join(bytes(data) for data in zmtp.encode(frames))


def read(plain: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = plain.recv(size - len(data))
        assert piece, f"expected {size} bytes, found the end behind {data!r}"
        data += piece
    return data


def until_end(plain: socket.socket) -> bytes:
    data = b""
    try:
        while piece := plain.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data


def test_a_client_that_delivers_byte_by_byte_is_served(stage: Stage) -> None:
    with connected(stage) as plain:
        for byte in HELLO + encoded(b"", PROTOCOL + SERVER_LIVE, b'{"id":"7"}'):
            plain.sendall(bytes((byte,)))
        assert read(plain, 64 + len(zmtp.READY)) == zmtp.GREETING + zmtp.READY
        expected = encoded(b"", PROTOCOL + RESULT, b'{"live":true,"id":"7"}')
        assert read(plain, len(expected)) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\xff" * 5000,
        zmtp.GREETING.replace(b"NULL", b"CURVE")[:64],
        zmtp.GREETING + zmtp.encode_command(b"READY", b"\x0bSocket-Type\0\0\0\3SUB"),
        HELLO + b"\2" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"),
    ],
    ids=["http", "noise", "curve", "subscriber", "huge frame"],
)
def test_what_is_no_zeromq_of_ours_is_hung_up_on_and_others_go_on(
    stage: Stage, data: bytes
) -> None:
    stage.serving()
    with connected(stage) as plain, stage.client() as client:
        assert client.ask("adder", [1]).code == "OK"
        plain.sendall(data)
        assert until_end(plain).startswith(zmtp.GREETING)
        assert client.ask("adder", [1]).code == "OK"


def test_a_client_that_goes_in_the_middle_of_a_message_leaves_nothing(stage: Stage) -> None:
    stage.serving()
    process = psutil.Process(stage.gateway.process.pid)
    with stage.client() as client:
        assert client.ask("adder", [1]).code == "OK"
        before = process.num_fds()
        for size in (3, 70, 100, 90_000):
            with connected(stage) as plain:
                large = b"\2" + (1 << 27).to_bytes(8, "big") + bytes(100_000)
                plain.sendall((HELLO + large)[:size])
        assert client.ask("adder", [1]).code == "OK"
        until(lambda: process.num_fds() == before, "all of them to be let go")
        assert process.memory_info().rss < 200 << 20


def test_a_client_with_heartbeats_stays_connected(stage: Stage) -> None:
    stage.serving()
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.set(zmq.HEARTBEAT_IVL, 20)
        dealer.set(zmq.HEARTBEAT_TIMEOUT, 200)
        dealer.set(zmq.LINGER, 0)
        with dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
            dealer.connect(stage.endpoint)
            dealer.send_multipart([PROTOCOL + SERVER_LIVE, b"{}"])
            assert dealer.recv_multipart()[0] == PROTOCOL + RESULT
            assert not monitor.poll(1000), "the gateway did not answer its pings"
            dealer.disable_monitor()


def test_many_clients_at_once_each_get_their_own_answer(stage: Stage) -> None:
    stage.serving(queue_size=1000)
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, 2000)
        dealers = [context.socket(zmq.DEALER) for _ in range(300)]
        for number, dealer in enumerate(dealers):
            dealer.set(zmq.LINGER, 0)
            dealer.set(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
            dealer.connect(stage.endpoint)
            dealer.send_multipart(adder_request(number))
        for number, dealer in enumerate(dealers):
            answer = Answer(dealer.recv_multipart())
            assert (answer.code, answer.id) == ("OK", str(number))
            dealer.close()


def adder_request(number: int) -> list[Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1]}
    header = {"model_name": "adder", "id": str(number), "inputs": [tensor]}
    return [PROTOCOL + INFER, msgspec.json.encode(header), np.array([number], "f4").tobytes()]


@pytest.mark.parametrize(
    "header",
    [b'{"model_name":"\xff"}', b'{"z":' + b"[" * 200_000, b'{"z":' + b'{"a":' * 100_000],
    ids=["no UTF-8", "lists within lists", "objects within objects"],
)
def test_a_header_that_cannot_be_read_costs_its_own_request_alone(
    stage: Stage, header: bytes
) -> None:
    stage.serving()
    with stage.client() as client:
        client.send_raw([PROTOCOL + INFER, header])
        assert client.receive().code == "INVALID_ARGUMENT"
        assert client.query(b"R", header).code == "INVALID_ARGUMENT"
        assert client.ask("adder", [1]).code == "OK"
