"""Requests that wait at a gateway: their order, their limit, their deadlines."""

from __future__ import annotations

import socket

import pytest

from superbrain.domain import ctl
from superbrain.wire import lane
from superbrain.wire.messages import MODEL_READY
from tests.support.fake_worker import SLOW
from tests.support.processes import PATIENCE_S, Stage, WorkerChild, lane_frames, until

pytestmark = pytest.mark.integration


def test_higher_priority_overtakes_those_that_wait(stage: Stage) -> None:
    worker = stage.serving("slow_ms=600")
    with stage.client() as client:
        for _ in range(2):  # one executes, one is at the worker or on its way there
            client.send("adder", [SLOW], id="slow")
        until(worker.at_work, "the worker at work")
        client.send("adder", [1], id="low")
        client.send("adder", [1], id="high", priority=9)
        order = [client.receive().id for _ in range(4)]
    assert order[0] == "slow"
    assert order.index("high") < order.index("low")


def test_a_request_that_expires_while_waiting_is_answered_in_time_and_not_executed(
    stage: Stage,
) -> None:
    worker = stage.serving("slow_ms=1000")
    with stage.client() as client:
        for _ in range(2):
            client.send("adder", [SLOW])
        client.send("adder", [1], id="late", timeout_ms=50)
        answer = client.receive()  # the first to come, though the last to go
        assert (answer.code, answer.id) == ("DEADLINE_EXCEEDED", "late")
        client.receive()
        client.receive()
    assert worker.figures().requests == 2


def test_a_deadline_that_has_passed_on_a_lane_is_never_executed(stage: Stage) -> None:
    worker = stage.serving()
    peer = socket.socket(socket.AF_UNIX)
    with peer:
        peer.settimeout(PATIENCE_S)
        peer.connect(worker.address.path)
        header = b'{"model_name":"adder","inputs":[]}'
        peer.sendall(b"".join(map(bytes, lane.encode(lane.REQUEST, header, deadline_ns=1))))
        kinds = [frame.kind for frame in lane_frames(peer, 2)]
    assert kinds == [lane.HELLO, lane.ERROR]
    assert worker.figures().expired == 1


def test_more_than_may_wait_is_refused_at_once(stage: Stage) -> None:
    stage.serving("slow_ms=600", queue_size=2)
    with stage.client() as client:
        for number in range(5):  # two travel, two wait
            client.send("adder", [SLOW], id=str(number))
        answer = client.receive()
        assert (answer.code, answer.id) == ("RESOURCE_EXHAUSTED", "4")
        assert [client.receive().code for _ in range(4)] == ["OK"] * 4


def test_requests_wait_for_a_route_and_a_reason_refuses_them(stage: Stage) -> None:
    stage.gateway.route("adder", "1", [])
    with stage.client() as client:
        client.send("adder", [1], id="waits")
        assert client.silent(50)
        assert b"no proven worker" in client.query(MODEL_READY, b'{"model_name":"adder"}').raw
        stage.gateway.route("adder", "1", [], reason="the disk is full")
        answer = client.receive()
        assert (answer.code, answer.id) == ("UNAVAILABLE", "waits")
        assert "the disk is full" in str(client.ask("adder", [1]).error)
        stage.gateway.order(ctl.Unroute("adder"), ctl.Done)
        assert client.ask("adder", [1]).code == "NOT_FOUND"


def test_two_instances_share_the_work(stage: Stage) -> None:
    workers = [stage.worker("slow_ms=200"), stage.worker("slow_ms=200")]
    same_deployment(workers)
    for worker in workers:
        worker.bring_up()
    stage.gateway.route("adder", "1", workers)
    with stage.client() as client:
        client.send("adder", [SLOW])
        client.send("adder", [SLOW])
        until(lambda: all(worker.at_work() for worker in workers), "both workers at work")
        assert [client.receive().code for _ in range(2)] == ["OK", "OK"]


def same_deployment(workers: list[WorkerChild]) -> None:
    for worker in workers:
        load = worker.load
        worker.load = ctl.Load(1, "", "", load.rung, load.lane_path)
