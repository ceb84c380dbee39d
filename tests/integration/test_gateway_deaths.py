"""Workers that die, hang or lie behind a gateway: what becomes of the requests they had."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from superbrain.domain import ctl
from superbrain.wire import lane
from superbrain.wire.messages import ModelMetadata
from tests.support.fake_worker import DIE, SLOW
from tests.support.processes import PATIENCE_S, Child, OrderFailed, Stage, until

pytestmark = pytest.mark.integration
NO_METADATA = ModelMetadata("adder", ["1"], "superbrain", [], [])


def test_a_killed_worker_loses_no_request(stage: Stage) -> None:
    doomed, heir = stage.worker("slow_ms=5000"), stage.worker("slow_ms=1")
    doomed.bring_up()
    stage.gateway.route("adder", "1", [doomed])
    with stage.client() as client:
        for number in range(5):
            client.send("adder", [SLOW], id=str(number))
        until(doomed.at_work, "the worker at work")
        doomed.kill()
        heir.bring_up()
        stage.gateway.route("adder", "1", [heir])
        answers = [client.receive() for _ in range(5)]
        assert [(answer.id, answer.code) for answer in answers] == [
            (str(number), "OK") for number in range(5)
        ]
        assert client.silent(50)
    assert stage.gateway.figures().models[0].redispatched == 2


def test_a_request_that_ends_two_workers_is_poison_and_innocents_survive(stage: Stage) -> None:
    first = stage.serving()
    with stage.client() as client:
        client.send("adder", [SLOW], id="before")  # so that the next two travel together
        client.send("adder", [DIE], id="poison")
        client.send("adder", [1], id="innocent")
        assert client.receive().id == "before"
        first.process.wait(PATIENCE_S)
        second = stage.worker().bring_up()
        stage.gateway.route("adder", "1", [second])
        answer = client.receive()
        assert (answer.id, answer.code) == ("poison", "INTERNAL")
        assert "ended 2 workers" in str(answer.error)
        second.process.wait(PATIENCE_S)
        stage.gateway.route("adder", "1", [stage.worker().bring_up()])
        assert client.receive().id == "innocent"
    poisoned = stage.gateway.hear(ctl.Poisoned) if not stage.gateway.unasked else None
    found = poisoned or stage.gateway.unasked[0]
    assert found == ctl.Poisoned("adder", first.load.deployment_id + 1, "poison")


def test_a_request_whose_worker_hangs_beyond_its_deadline_is_answered_and_reported(
    stage: Stage,
) -> None:
    hanging = stage.worker("slow_ms=3600000").bring_up()
    stage.gateway.route("adder", "1", [hanging])
    with stage.client() as client:
        client.send("adder", [SLOW], id="endless", timeout_ms=300)
        until(lambda: hanging.figures().executing == ["endless"], "the worker to name what it does")
        until(lambda: hanging.figures().executing_s > 0.3, "the deadline to pass")
        hanging.kill()
        answer = client.receive()
        assert (answer.id, answer.code) == ("endless", "DEADLINE_EXCEEDED")
        assert "hung or died while it executed this request" in str(answer.error)
    poisoned = stage.gateway.hear(ctl.Poisoned) if not stage.gateway.unasked else None
    found = poisoned or stage.gateway.unasked[0]
    assert found == ctl.Poisoned("adder", hanging.load.deployment_id, "endless", deaths=1)


def test_a_golden_case_runs_again_in_the_process_that_serves(stage: Stage) -> None:
    worker = stage.worker()
    worker.order(worker.load, ctl.Loaded)
    with pytest.raises(OrderFailed, match="expected a passed proof"):
        worker.order(ctl.Reprove(0), ctl.Reproven)
    worker.order(ctl.Prove(), ctl.Proven)
    worker.serve()
    stage.gateway.route("adder", "1", [worker])
    with stage.client() as client:
        assert client.ask("adder", [1]).outputs["y"][0] == 2
        proof = worker.order(ctl.Reprove(0), ctl.Reproven).proof
        assert proof is not None
        assert proof.passed
        assert client.ask("adder", [2]).outputs["y"][0] == 3


def test_a_worker_that_speaks_garbage_is_left_and_its_requests_kept(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "liar"
    with socket.socket(socket.AF_UNIX) as listener, stage.client() as client:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        order = ctl.Route("adder", "1", 1, [ctl.LaneAddress(str(path), 1)], NO_METADATA, 8, 20_000)
        stage.gateway.say(order)
        liar, _ = listener.accept()
        hello = lane.Hello("adder", "1", 1, 2)
        liar.sendall(b"".join(map(bytes, lane.encode(lane.HELLO, msgspec.json.encode(hello)))))
        stage.gateway.hear(ctl.Done)
        client.send("adder", [1], id="kept")
        liar.settimeout(PATIENCE_S)
        assert liar.recv(1 << 16)
        liar.sendall(b"\xff" * 64)
        stage.gateway.route("adder", "1", [stage.worker().bring_up()])
        assert client.receive().id == "kept"
        liar.close()


@pytest.mark.parametrize("deployment_id", [7, 0])
def test_a_lane_that_greets_as_another_deployment_is_refused(
    stage: Stage, deployment_id: int
) -> None:
    worker = stage.worker().bring_up()
    order = ctl.Route(
        "adder", "1", worker.load.deployment_id + 1, [worker.address], NO_METADATA, 8, 100
    )
    with pytest.raises(OrderFailed, match="no valid greeting"):
        stage.gateway.order(order, ctl.Done)


def test_a_lane_where_nobody_listens_fails_the_order(stage: Stage, tmp_path: Path) -> None:
    order = ctl.Route(
        "adder", "1", 1, [ctl.LaneAddress(str(tmp_path / "none"), 1)], NO_METADATA, 8, 20_000
    )
    with pytest.raises(OrderFailed, match="none"):
        stage.gateway.order(order, ctl.Done)


@pytest.mark.parametrize("who", ["gateway", "worker"])
def test_children_end_with_their_channel(stage: Stage, who: str) -> None:
    worker = stage.serving("slow_ms=60000")
    child: Child = worker if who == "worker" else stage.gateway
    with stage.client() as client:
        client.send("adder", [SLOW])
        until(worker.at_work, "the worker at work")
        child.channel.shutdown(socket.SHUT_RDWR)
        assert child.process.wait(5) == 0


def test_signals_are_left_to_the_daemon(stage: Stage) -> None:
    worker = stage.serving()
    for child in (stage.gateway, worker):
        child.process.terminate()
        child.process.send_signal(2)
    with stage.client() as client:
        assert client.ask("adder", [1]).code == "OK"
