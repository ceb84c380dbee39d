"""What gateway and worker do when they are told to, and what they refuse to do."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import numpy as np
import pytest

from superbrain.bundle.store import Store
from superbrain.domain import ctl
from superbrain.wire.messages import SERVER_LIVE
from tests.support.bundles import make_bundle, sign_key, verified
from tests.support.fake_worker import SLOW
from tests.support.processes import PATIENCE_S, GatewayChild, OrderFailed, Stage, until

pytestmark = pytest.mark.integration


def test_a_worker_serves_only_after_its_own_proof_has_passed(stage: Stage) -> None:
    worker = stage.worker("proves=no")
    for order in (ctl.Prove(), ctl.Serve()):
        with pytest.raises(OrderFailed):
            worker.order(order, ctl.Done)
    worker.order(worker.load, ctl.Loaded)
    assert not worker.order(ctl.Prove(), ctl.Proven).proof.passed
    with pytest.raises(OrderFailed, match="expected a passed proof"):
        worker.serve()
    with socket.socket(socket.AF_UNIX) as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(worker.address.path)


def test_a_worker_that_stands_by_hangs_up_on_whoever_connects(stage: Stage) -> None:
    worker = stage.serving()
    worker.stand_by()
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(10)
            caller.connect(worker.address.path)
            assert caller.recv(1) == b""
    worker.serve()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(10)
        caller.connect(worker.address.path)
        assert caller.recv(1) != b""


def bundle_load(folder: Path, *, constant: float = 1.0, golden_error: float = 0.0) -> ctl.Load:
    """Make a real bundle, put it into a store, and give the order to load it."""
    author = sign_key(folder / "keys")
    bundle = make_bundle(folder, author, constant=constant, golden_error=golden_error)
    checked = verified(bundle, author)
    with bundle.path.open("rb") as file:
        stored = Store(folder / "store", reserve_bytes=0).receive(file, checked)
    return ctl.Load(1, str(stored), checked.digest, "onnxruntime:cpu", str(folder / "lane"))


def test_a_real_bundle_is_loaded_proven_and_served(stage: Stage, tmp_path: Path) -> None:
    worker = stage.worker(load=bundle_load(tmp_path, constant=2.0)).bring_up()
    stage.gateway.route("adder", "1.0.0", [worker])
    with stage.client() as client:
        answer = client.ask("adder", np.zeros((1, 4), np.float32))
    assert answer.outputs["y"].tolist() == [[2.0] * 4]
    assert answer.model_version == "1.0.0"


def test_a_real_bundle_that_drifts_is_not_served(stage: Stage, tmp_path: Path) -> None:
    worker = stage.worker(load=bundle_load(tmp_path, golden_error=0.5))
    worker.order(worker.load, ctl.Loaded)
    assert not worker.order(ctl.Prove(), ctl.Proven).proof.passed
    with pytest.raises(OrderFailed, match="expected a passed proof"):
        worker.serve()


def test_a_damaged_store_is_not_the_bundle_s_fault(stage: Stage, tmp_path: Path) -> None:
    load = bundle_load(tmp_path)
    worker = stage.worker(load=ctl.Load(1, load.bundle_path, "0" * 64, load.rung, load.lane_path))
    with pytest.raises(OrderFailed, match="sha256 0000") as caught:
        worker.order(worker.load, ctl.Loaded)
    assert (caught.value.failed.code, caught.value.failed.bundle_at_fault) == (
        "STORE_DAMAGED",
        False,
    )


def test_a_load_that_fails_says_why(stage: Stage) -> None:
    worker = stage.worker("load=fails")
    with pytest.raises(OrderFailed, match="expected a model that loads") as caught:
        worker.order(worker.load, ctl.Loaded)
    assert caught.value.failed.code == "INVALID_ARGUMENT"


def test_ping_is_answered_while_a_request_executes(stage: Stage) -> None:
    worker = stage.serving("slow_ms=1000")
    with stage.client() as client:
        client.send("adder", [SLOW])
        until(worker.at_work, "the worker at work")
        assert worker.at_work()
        client.receive()


def test_sockets_are_for_owner_and_group_only(stage: Stage) -> None:
    worker = stage.serving()
    for path in (worker.address.path, stage.endpoint.removeprefix("ipc://")):
        mode = Path(path).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660


def test_a_second_gateway_on_the_same_endpoint_is_refused(stage: Stage, tmp_path: Path) -> None:
    second = GatewayChild(stage.endpoint)
    with pytest.raises(OrderFailed, match="somebody answers there"):
        second.hear(ctl.GatewayReady)
    assert second.process.wait(PATIENCE_S) == 3
    second.close()
    with stage.client() as client:
        assert client.query(SERVER_LIVE).code == "OK"


def test_a_gateway_takes_over_what_a_killed_one_left(stage: Stage) -> None:
    stage.gateway.kill()
    stage.gateway.close()
    assert Path(stage.endpoint.removeprefix("ipc://")).exists()
    stage.gateway = GatewayChild(stage.endpoint)
    stage.gateway.begin()
    with stage.client() as client:
        assert client.query(SERVER_LIVE).code == "OK"
