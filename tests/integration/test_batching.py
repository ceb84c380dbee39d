"""Requests that share runs, with real processes: right for each, and fatal for the guilty one."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from superbrain.client import Client
from superbrain.domain import ctl
from superbrain.wire.errors import DeadlineExceeded, Internal, InvalidArgument
from tests.support.appliance import Appliance
from tests.support.fake_worker import DIE, REFUSE, SLOW
from tests.support.load import Load
from tests.support.processes import Stage, until
from tests.support.releases import go_live, release

pytestmark = pytest.mark.integration
BATCHING = "batching = { max_size = 8, max_delay_ms = 2 }"
PATIENCE_S = 20.0


def one(value: float) -> dict[str, np.ndarray]:
    return {"x": np.array([value], np.float32)}


# --- one worker -----------------------------------------------------------------------------------


def test_what_waited_during_an_execution_is_answered_together(stage: Stage) -> None:
    worker = stage.serving("batch=8")
    with Client(stage.endpoint, lanes=False) as client:
        client.infer("adder", one(1))
        slow = client.submit("adder", one(SLOW))
        until(worker.at_work, "the worker at work")
        pending = [client.submit("adder", one(n)) for n in range(8)]
        slow.result()
        results = [request.result() for request in pending]
    assert [float(result["y"][0]) for result in results] == [n + 1 for n in range(8)]
    assert max(int(result["mates"][0]) for result in results) > 1
    figures = worker.figures()
    assert figures.batches >= 1
    assert figures.batched_requests <= 9


def test_a_worker_that_batches_wants_two_batches_outstanding(stage: Stage) -> None:
    stage.serving("batch=8,slow_ms=100")
    with Client(stage.endpoint, lanes=False) as client:
        client.infer("adder", one(1))
        pending = [client.submit("adder", one(SLOW)) for _ in range(24)]
        until(lambda: stage.gateway.figures().models[0].waiting > 0, "more than travel")
        assert stage.gateway.figures().models[0].outstanding == 16
        for request in pending:
            request.result()


def test_one_that_is_refused_harms_no_mate(stage: Stage) -> None:
    worker = stage.serving("batch=8")
    with Client(stage.endpoint) as client:
        client.infer("adder", one(1))
        slow = client.submit("adder", one(SLOW))
        until(worker.at_work, "the worker at work")
        pending = [client.submit("adder", one(value)) for value in (1, REFUSE, 3)]
        slow.result()
        assert float(pending[0].result()["y"][0]) == 2
        assert float(pending[2].result()["y"][0]) == 4
        with pytest.raises(InvalidArgument):
            pending[1].result()


def test_nobody_is_held_by_a_worker_that_retires(stage: Stage) -> None:
    old = stage.serving("version=1,batch=8,delay_ms=5000,adaptive=no")
    new = stage.worker("version=2").bring_up()
    with Client(stage.endpoint, lanes=False) as client:
        assert client.live()
        pending = [client.submit("adder", one(value)) for value in (1, 2)]
        until(lambda: old.figures().queued == 2, "two that are held")
        old.stand_by()
        stage.gateway.route("adder", "2", [new])
        answers = [waiting.result() for waiting in pending]
    assert [(int(answer["version"][0]), int(answer["mates"][0])) for answer in answers] == [
        (1, 2),
        (1, 2),
    ]


def test_what_expires_in_the_queue_is_in_no_batch(stage: Stage) -> None:
    worker = stage.serving("batch=8,slow_ms=100")
    with Client(stage.endpoint) as client:
        client.infer("adder", one(1))
        slow = client.submit("adder", one(SLOW))
        until(worker.at_work, "the worker at work")
        late = client.submit("adder", one(1), timeout=0.05)
        patient = client.submit("adder", one(2))
        slow.result()
        assert float(patient.result()["y"][0]) == 3
        with pytest.raises(DeadlineExceeded):
            late.result()


def test_of_a_batch_that_ends_its_worker_only_the_guilty_one_fails(stage: Stage) -> None:
    first = stage.serving("batch=8,slow_ms=100")
    with Client(stage.endpoint, lanes=False) as client:
        client.infer("adder", one(1))
        slow = client.submit("adder", one(SLOW))
        until(first.at_work, "the worker at work")
        poison = client.submit("adder", one(DIE))
        others = [client.submit("adder", one(n)) for n in range(5)]
        slow.result()
        first.process.wait(PATIENCE_S)
        second = stage.worker("batch=8").bring_up()
        stage.gateway.route("adder", "1", [second])
        with pytest.raises(Internal, match="ended 2 workers"):
            poison.result()
        stage.gateway.route("adder", "1", [stage.worker("batch=8").bring_up()])
        results = [request.result() for request in others]
    assert [float(result["y"][0]) for result in results] == [n + 1 for n in range(5)]
    found = stage.gateway.unasked or [stage.gateway.hear(ctl.Poisoned)]
    assert len(found) == 1


def test_a_suspect_runs_alone_even_where_others_wait(stage: Stage) -> None:
    first = stage.serving("batch=8,slow_ms=200")
    with Client(stage.endpoint, lanes=False) as client:
        client.infer("adder", one(1))
        pending = [client.submit("adder", one(SLOW)) for _ in range(3)]
        until(first.at_work, "the worker at work")
        first.kill()
        stage.gateway.route("adder", "1", [stage.worker("batch=8,slow_ms=1").bring_up()])
        mates = [int(request.result()["mates"][0]) for request in pending]
    assert 1 in mates  # the one that was executed when the worker died


@pytest.mark.parametrize(("adaptive", "least_s"), [("no", 1.0), ("yes", 0.0)])
def test_only_without_adaption_a_lone_request_is_held(
    stage: Stage, adaptive: str, least_s: float
) -> None:
    stage.serving(f"batch=8,delay_ms=1000,adaptive={adaptive}")
    with Client(stage.endpoint, lanes=False) as client:
        client.infer("adder", one(1))
        started = time.monotonic()
        client.infer("adder", one(1))
        took_s = time.monotonic() - started
    assert took_s >= least_s
    assert (took_s < 0.2) == (adaptive == "yes")


# --- a whole appliance ----------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [True, False], ids=["lanes", "gateway"])
@pytest.mark.parametrize("clients", [8, 32])
def test_many_clients_get_their_own_answers_through_shared_runs(
    tmp_path: Path, clients: int, *, lanes: bool
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, serving=BATCHING)
        with Load(partial(appliance.client, lanes=lanes), clients=clients) as load:
            appliance.wait_for(lambda: load.answered > 500, "answers")
            appliance.drop(release(appliance, 2, serving=BATCHING))
            appliance.wait_for(lambda: load.newest == 2, "the next version")
            appliance.wait_for(lambda: _mean_batch(appliance) > 1, "shared runs in the figures")
        load.assert_flawless()


def _mean_batch(appliance: Appliance) -> float:
    model = appliance.model("adder")
    return (model and model.mean_batch) or 0.0


def test_requests_of_different_rows_are_answered_row_by_row(tmp_path: Path) -> None:
    wrong: list[str] = []
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, serving=BATCHING)

        def ask(seed: int) -> None:
            random = np.random.default_rng(seed)
            with appliance.client() as client:
                for _ in range(150):
                    x = random.random((int(random.integers(1, 9)), 4), np.float32)
                    y = client.infer("adder", {"x": x})["y"]
                    if y.shape != x.shape or not np.allclose(y, x + 1):
                        wrong.append(f"{x.shape}: {y.shape}")

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_worker_killed_in_the_middle_of_batches_loses_nothing(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, serving=BATCHING)
        with Load(appliance.client, clients=8) as load:
            for _ in range(3):
                appliance.wait_for(lambda: _mean_batch(appliance) > 1, "shared runs")
                model = appliance.model("adder")
                assert model is not None
                workers = {worker.pid for worker in model.workers}
                for child in appliance.children():
                    if child.pid in workers:
                        child.kill()
                before = load.answered
                appliance.wait_for(lambda: load.answered > before + 200, "answers again")  # noqa: B023
        load.assert_flawless()
