"""The TCP face alone, before a gateway and a worker: limits, rude clients, a guard that is gone."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import zmq

from superbrain.domain import ctl
from superbrain.serve.ctl_channel import CtlChannel
from superbrain.serve.tcp_connections import MOST_FRESH
from superbrain.serve.tcp_face import TcpFace
from superbrain.wire.messages import INFER, PROTOCOL, InferRequest, TensorHeader
from tests.support.fake_worker import BIG, SLOW
from tests.support.processes import Answer, Stage, until
from tests.support.tcp import FaceChild, certificate, free_endpoint, speak_curve

pytestmark = pytest.mark.integration

MOST_REQUESTS = 8
FACE_BYTES = 512 << 20


@pytest.fixture
def face(tmp_path: Path, stage: Stage) -> Iterator[FaceChild]:
    (tmp_path / "tcp").mkdir()
    limits = {"requests_per_client": MOST_REQUESTS, "memory_bytes": FACE_BYTES}
    face = FaceChild(tmp_path / "tcp", stage.endpoint, **limits)
    yield face
    face.close()


def request(*values: float, id: str = "") -> list[bytes]:
    x = np.array(values, np.float32)
    header = InferRequest("adder", [TensorHeader("x", "FP32", list(x.shape))], id)
    return [PROTOCOL + INFER, msgspec.json.encode(header), x.tobytes()]


def test_any_kind_of_client_and_any_size_of_message_is_served(
    stage: Stage, face: FaceChild
) -> None:
    stage.serving("big_mb=24")
    dealer = face.dealer()
    dealer.send_multipart([b"hop", b"", *request(1)])
    envelope, delimiter, *answer = dealer.recv_multipart()
    assert (envelope, delimiter) == (b"hop", b"")
    assert Answer(answer).outputs["y"].tolist() == [2]
    dealer.send_multipart(request(*range(2_000_000)))
    assert Answer(dealer.recv_multipart()).outputs["y"].shape == (2_000_000,)
    dealer.send_multipart(request(BIG))
    assert Answer(dealer.recv_multipart()).outputs["y"].nbytes == 24 << 20
    dealer.send(b"hello")
    assert Answer(dealer.recv_multipart()).code == "INVALID_ARGUMENT"


def test_more_requests_than_a_client_may_have_are_refused_by_name(
    stage: Stage, face: FaceChild
) -> None:
    stage.serving("slow_ms=300")
    dealer = face.dealer()
    for number in range(MOST_REQUESTS + 5):
        dealer.send_multipart(request(SLOW if number == 0 else 1, id=str(number)))
    answers = [Answer(dealer.recv_multipart()) for _ in range(MOST_REQUESTS + 5)]
    refused = [answer for answer in answers if answer.code == "RESOURCE_EXHAUSTED"]
    assert len(refused) == 5
    assert "requests of one TCP client" in str(refused[0].error)
    assert {answer.id for answer in answers} == {str(n) for n in range(MOST_REQUESTS + 5)}
    dealer.send_multipart(request(1))  # and goes on
    assert Answer(dealer.recv_multipart()).code == "OK"


def test_a_client_that_sends_and_never_reads_is_hung_up_on(stage: Stage, face: FaceChild) -> None:
    stage.serving("big_mb=1")
    greedy = face.dealer(RCVHWM=1, RCVBUF=4096, SNDHWM=1)

    def cut() -> bool:
        while greedy.poll(0, zmq.POLLOUT):
            greedy.send_multipart(request(BIG))
        return face.figures().cut > 0

    until(cut, "the face to hang up")
    assert psutil.Process(face.process.pid).memory_info().rss < 512 << 20
    good = face.dealer()
    good.send_multipart(request(1))
    assert Answer(good.recv_multipart()).outputs["y"].tolist() == [2]


def test_a_message_without_end_is_hung_up_on_before_it_fills_the_host(
    stage: Stage, face: FaceChild
) -> None:
    stage.serving()
    endless = face.dealer(SNDHWM=0)
    piece = bytes(8 << 20)
    for _ in range(FACE_BYTES // len(piece)):
        endless.send(piece, zmq.SNDMORE, copy=False)
    endless.send(b"")
    until(lambda: face.figures().accepted > 1, "it to be hung up on, and to come back")
    assert psutil.Process(face.process.pid).memory_info().rss < FACE_BYTES
    good = face.dealer()
    good.send_multipart(request(1))
    assert Answer(good.recv_multipart()).code == "OK"


def test_waiting_requests_of_a_client_that_has_gone_are_not_executed(
    stage: Stage, face: FaceChild
) -> None:
    worker = stage.serving("slow_ms=1000")
    dealer = face.dealer()
    for _ in range(MOST_REQUESTS):
        dealer.send_multipart(request(SLOW))
    until(lambda: stage.gateway.figures().models[0].waiting, "requests to wait")
    until(lambda: worker.figures().executing_s, "the first to be executed")
    dealer.close()
    until(lambda: not stage.gateway.figures().models[0].waiting, "them to be dropped")
    until(lambda: not stage.gateway.figures().models[0].outstanding, "the others to be answered")
    assert worker.figures().requests < MOST_REQUESTS


def test_strangers_that_never_shake_hands_make_room_for_a_client(
    stage: Stage, face: FaceChild
) -> None:
    stage.serving()
    host, _, port = face.endpoint.removeprefix("tcp://").rpartition(":")
    strangers = [socket.create_connection((host, int(port))) for _ in range(2 * MOST_FRESH)]
    dealer = face.dealer()
    dealer.send_multipart(request(1))
    assert Answer(dealer.recv_multipart()).code == "OK"
    until(lambda: face.figures().connections <= MOST_FRESH + 1, "the oldest to be cut")
    for stranger in strangers:
        stranger.close()
    until(lambda: face.figures().connections == 1, "the rest to be gone")


def test_a_gateway_that_comes_later_gets_what_waited(tmp_path: Path) -> None:
    (tmp_path / "tcp").mkdir()
    face = FaceChild(tmp_path / "tcp", f"ipc://{tmp_path}/infer.sock")
    dealer = face.dealer()
    dealer.send_multipart(request(1))
    until(lambda: face.figures().clients, "the request to be there")
    with Stage(tmp_path) as stage:
        stage.serving()
        answer = Answer(dealer.recv_multipart())
    assert answer.code in {"OK", "NOT_FOUND"}  # the model may still be on its way
    face.close()


@pytest.mark.parametrize("guarded", [True, False], ids=["guard there", "guard gone"])
def test_nobody_gets_in_when_the_guard_is_gone(tmp_path: Path, *, guarded: bool) -> None:
    """The face's own sockets, in this process, so that its guard can be taken away."""
    endpoint = free_endpoint()
    server, pair = certificate(tmp_path / "server"), certificate(tmp_path / "client")
    clients = tmp_path / "clients"
    clients.mkdir(mode=0o755)
    ours, theirs = socket.socketpair()
    options = argparse.Namespace(
        secret_key=tmp_path / "server.key", clients=clients, bind=[endpoint], max_clients=8
    )
    channel = CtlChannel(ours, msgspec.msgpack.Decoder(ctl.ToTcpFace))
    with theirs, ours, zmq.Context() as own, zmq.Context() as other:
        dealer = other.socket(zmq.DEALER)
        dealer.linger = 0
        face = TcpFace(options, channel, own)
        face._guard.names = {pair.public: "client"}
        if not guarded:
            face._guard.close()
        speak_curve(dealer, server.public, pair)
        monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        dealer.connect(endpoint)
        for _ in range(100):
            if guarded:
                face._guard.answer()
            if monitor.poll(10):
                break
        assert bool(monitor.poll(0)) is guarded
        dealer.disable_monitor()
        monitor.close()
        dealer.close()
        face.close()
