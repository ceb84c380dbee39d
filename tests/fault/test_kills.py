"""SIGKILL of every process with requests in flight; that of the daemon is in test_cuts.py."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from superbrain.deploy.crew import WORKER_MODULE
from superbrain.deploy.gateway import GATEWAY_MODULE
from superbrain.domain import operations as op
from superbrain.wire.errors import Internal, RequestError
from tests.support.appliance import Appliance, words
from tests.support.load import Load
from tests.support.releases import go_live, release
from tests.support.twins import twin

__all__ = ["twin"]
pytestmark = [pytest.mark.fault, pytest.mark.integration]

SLOW = """
import time

class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request):
        time.sleep(0.02)
        return request
    def postprocess(self, outputs, request): return outputs
"""
DEADLY = """
import os

class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request):
        if request["x"][0, 0] == 666:
            os._exit(1)
        return request
    def postprocess(self, outputs, request): return outputs
"""
HANGING = DEADLY.replace("os._exit(1)", "import time; time.sleep(3600)")


def child_running(appliance: Appliance, module: str) -> psutil.Process:
    return next(c for c in appliance.children() if module in words(c))


@pytest.mark.usefixtures("twin")
def test_a_worker_killed_with_requests_in_flight_costs_no_answer(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, pipeline=SLOW)
        inputs = [np.full((1, 4), number, np.float32) for number in range(40)]
        with appliance.client() as client:
            pending = [client.submit("adder", {"x": x}) for x in inputs]
            appliance.wait_for(pending[5].done, "the first answers")
            child_running(appliance, WORKER_MODULE).kill()
            answers = [one.result()["y"] for one in pending]
        for x, y in zip(inputs, answers, strict=True):
            np.testing.assert_array_equal(y, x + 1)
        model = appliance.wait_live("adder", "1.0.0")
        assert model.restarts == 1


def test_a_gateway_killed_with_requests_in_flight_costs_no_answer(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, pipeline=SLOW)
        inputs = [np.full((1, 4), number, np.float32) for number in range(40)]
        with appliance.client() as client:
            pending = [client.submit("adder", {"x": x}) for x in inputs]
            appliance.wait_for(pending[5].done, "the first answers")
            child_running(appliance, GATEWAY_MODULE).kill()
            answers = [one.result()["y"] for one in pending]
        for x, y in zip(inputs, answers, strict=True):
            np.testing.assert_array_equal(y, x + 1)
        assert appliance.health().gateway.restarts == 1


def test_repeated_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        with Load(appliance.client, clients=2) as load:
            for module in (WORKER_MODULE, GATEWAY_MODULE, WORKER_MODULE):
                victim = child_running(appliance, module)
                victim.kill()
                victim.wait(10)
                appliance.wait_live("adder", "1.0.0")
        load.assert_flawless()


def test_a_request_that_ends_two_workers_is_answered_and_the_others_survive(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, pipeline=DEADLY)
        values = [*range(10), 666, *range(10, 20)]
        with appliance.client() as client, ThreadPoolExecutor(4) as pool:

            def ask(value: int) -> float | str:
                try:
                    x = np.full((1, 4), value, np.float32)
                    return float(client.infer("adder", {"x": x})["y"][0, 0])
                except Internal as error:
                    return error.message

            answers = list(pool.map(ask, values))
        expected = [float(value + 1) for value in values if value != 666]
        assert [answer for answer in answers if isinstance(answer, float)] == expected
        assert "ended 2 workers" in str(answers[10])
        assert "request_poisoned" in appliance.log_text()


def test_a_hanging_request_is_ended_with_its_worker_and_the_next_one_is_answered(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1, pipeline=HANGING, serving="request_timeout_ms = 500")
        with appliance.client() as client:
            hanging = client.submit("adder", {"x": np.full((1, 4), 666, np.float32)})
            good = client.infer("adder", {"x": np.zeros((1, 4), np.float32)}, timeout=60)
            assert good["y"][0, 0] == 1
            with pytest.raises(RequestError):
                hanging.result()
        assert "worker_stuck" in appliance.log_text()


def test_a_version_that_keeps_crashing_is_rolled_back_by_itself(tmp_path: Path) -> None:
    with Appliance(tmp_path, crashes=1, probation_s=60) as appliance:
        appliance.drop(release(appliance, 1))
        appliance.wait_ended("adder", "1.0.0", "PROBATION")
        appliance.drop(release(appliance, 2))
        appliance.wait_ended("adder", "2.0.0", "PROBATION")
        with Load(appliance.client, clients=2) as load:
            while appliance.model("adder").version == "2.0.0":  # type: ignore[union-attr]
                workers = appliance.model("adder").workers  # type: ignore[union-attr]
                for worker in workers:
                    with contextlib.suppress(psutil.NoSuchProcess):  # the report is a look old
                        psutil.Process(worker.pid).kill()
                appliance.wait_for(
                    lambda: (m := appliance.model("adder")) and (m.version != "2.0.0" or m.workers),
                    "a worker or a rollback",
                )
        step = appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
        assert step.event == "PreviousReady"
        assert (load.failed, load.mixed) == ([], [])
        reasons = appliance.ask(op.GetHistory("adder"), op.HistoryReply).transitions
        assert any("died 2 times" in step.detail for step in reasons)


FAILING = """
class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request): return request
    def postprocess(self, outputs, request):
        if request["x"][0, 0] == 500:
            raise RuntimeError("this version cannot do 500")
        return outputs
"""


def test_a_version_that_answers_with_errors_is_rolled_back_by_itself(tmp_path: Path) -> None:
    with Appliance(tmp_path, probation_s=60) as appliance:
        appliance.drop(release(appliance, 1))
        appliance.wait_ended("adder", "1.0.0", "PROBATION")
        appliance.drop(release(appliance, 2, pipeline=FAILING))
        appliance.wait_ended("adder", "2.0.0", "PROBATION")
        x = np.full((1, 4), 500, np.float32)
        with appliance.client() as client:
            for _ in range(30):
                with contextlib.suppress(Internal):
                    client.infer("adder", {"x": x})
            appliance.wait_ended("adder", "2.0.0", "ROLLED_BACK")
            assert client.infer("adder", {"x": x})["y"][0, 0] == 501


SLOW_WHILE = """
import os, time
while os.path.exists({marker!r}):
    time.sleep(0.02)
class Pipeline:
    def __init__(self, bundle): pass
    def preprocess(self, request): return request
    def postprocess(self, outputs, request): return outputs
"""


def test_a_worker_killed_while_the_daemon_starts_costs_no_version(tmp_path: Path) -> None:
    marker = tmp_path / "slow"
    with Appliance(tmp_path) as appliance:
        go_live(appliance, 1)
        go_live(appliance, 2, pipeline=SLOW_WHILE.format(marker=str(marker)))
        appliance.stop()
        marker.touch()
        appliance.start()
        for _ in range(2):
            victim = appliance.wait_for(lambda: workers(appliance), "a worker")[0]
            victim.kill()
            victim.wait(10)
        marker.unlink()
        appliance.wait_live("adder", "2.0.0")
        assert not [s for s in appliance.history("adder") if s.event == "BudgetSpent"]


def test_a_bundle_whose_worker_and_then_the_daemon_was_killed_leaves_the_inbox(
    tmp_path: Path,
) -> None:
    marker = tmp_path / "slow"
    with Appliance(tmp_path, start=False) as appliance:
        configuration = appliance.root / "superbrain.toml"
        patient = configuration.read_text().replace("settle_s = 0.3", "settle_s = 8.0")
        configuration.write_text(patient)
        appliance.start()
        made = release(appliance, 1, pipeline=SLOW_WHILE.format(marker=str(marker)))
        marker.touch()
        dropped = appliance.drop(made)
        appliance.wait_for(lambda: workers(appliance), "a worker")[0].kill()
        appliance.wait_ended("adder", "1.0.0", "FAILED")
        os.utime(dropped)
        appliance.kill()
        marker.unlink()
        appliance.start()
        appliance.wait_for(lambda: not list(appliance.inbox.iterdir()), "an empty inbox")


def workers(appliance: Appliance) -> list[psutil.Process]:
    return [c for c in appliance.children() if WORKER_MODULE in words(c)]
