"""Clients on lanes, with a real gateway and real workers: faster, and otherwise no different."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.client import AsyncClient, Client
from superbrain.domain import ctl
from superbrain.wire.errors import Internal
from tests.support.fake_worker import DIE, SLOW
from tests.support.processes import ROOT, Stage, WorkerChild, until
from tests.support.twins import twin

__all__ = ["twin"]
pytestmark = pytest.mark.integration
PATIENCE_S = 20.0
ANSWERS = 40
LANE = "def infer_on_lane"


def add(client: Client, value: float) -> float:
    return float(client.infer("adder", {"x": np.array([value], np.float32)})["y"][0])


def on_lane(client: Client, worker: WorkerChild) -> None:
    """Ask until `worker` is asked directly."""
    before = worker.figures().direct_requests
    until(lambda: add(client, 1) == 2 and worker.figures().direct_requests > before, "a lane")


def test_after_the_first_requests_the_gateway_is_not_asked_any_more(stage: Stage) -> None:
    worker = stage.serving()
    with Client(stage.endpoint) as client:
        on_lane(client, worker)
        passed_on = stage.gateway.figures().models[0].requests
        before = worker.figures().direct_requests
        assert [add(client, value) for value in range(ANSWERS)] == list(range(1, ANSWERS + 1))
        assert stage.gateway.figures().models[0].requests == passed_on
        assert worker.figures().direct_requests == before + ANSWERS


def test_without_lanes_everything_goes_through_the_gateway(stage: Stage) -> None:
    worker = stage.serving()
    with Client(stage.endpoint, lanes=False) as client:
        for value in range(ANSWERS):
            add(client, value)
    assert worker.figures().direct_requests == 0
    assert stage.gateway.figures().models[0].requests == ANSWERS


@pytest.mark.usefixtures("twin")
def test_what_has_come_on_lanes_is_finished_at_a_swap(stage: Stage) -> None:
    old = stage.serving("version=1,slow_ms=25")
    new = stage.worker("version=2").bring_up()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(stage.endpoint)) for _ in range(3)]
        for client in clients:
            on_lane(client, old)
        passed_on = stage.gateway.figures().models[0].requests
        slow = {"x": np.array([SLOW], np.float32)}
        pending = [client.submit("adder", slow, timeout=PATIENCE_S) for client in clients]
        until(old.at_work, "the old worker at work")
        stage.gateway.prepare("adder", "2", [new])
        old.stand_by()
        assert [int(one.result()["version"][0]) for one in pending] == [1, 1, 1]
        assert stage.gateway.figures().models[0].requests == passed_on
        for client in clients:
            assert int(client.infer("adder", slow)["version"][0]) == 2


@pytest.mark.usefixtures("twin")
def test_more_than_the_window_are_answered_and_large_tensors_arrive_whole(stage: Stage) -> None:
    worker = stage.serving()
    values = np.arange(300_000, dtype=np.float32)
    with Client(stage.endpoint) as client:
        on_lane(client, worker)
        pending = [client.submit("adder", {"x": values + n}) for n in range(ANSWERS)]
        for n, one in enumerate(pending):
            np.testing.assert_array_equal(one.result()["y"], values + n + 1)


@pytest.mark.usefixtures("twin")
def test_threads_share_lanes(stage: Stage) -> None:
    worker = stage.serving()
    wrong: list[float] = []
    with Client(stage.endpoint) as client:
        on_lane(client, worker)

        def ask(first: int) -> None:
            wrong.extend(n for n in range(first, first + 200) if add(client, n) != n + 1)

        threads = [threading.Thread(target=ask, args=(n * 1000,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_tasks_share_lanes(stage: Stage) -> None:
    worker = stage.serving()

    async def talk() -> list[float]:
        async with AsyncClient(stage.endpoint) as client:

            async def ask(value: float) -> float:
                answer = await client.infer("adder", {"x": np.array([value], np.float32)})
                return float(answer["y"][0])

            while not worker.figures().direct_requests:
                await ask(1)
            return await asyncio.gather(*(ask(n) for n in range(200)))

    assert asyncio.run(talk()) == list(range(1, 201))


def test_two_instances_share_the_work_of_one_client(stage: Stage) -> None:
    one, two = stage.worker(), stage.worker()
    two.load = msgspec.structs.replace(two.load, deployment_id=one.load.deployment_id)
    one.bring_up()
    two.bring_up()
    stage.gateway.route("adder", "1", [one, two])
    with Client(stage.endpoint) as client:
        on_lane(client, one)
        pending = [
            client.submit("adder", {"x": np.array([SLOW], np.float32)}, timeout=PATIENCE_S)
            for _ in range(8)
        ]
        for request in pending:
            request.result()
    assert one.figures().direct_requests > 1
    assert two.figures().direct_requests > 1


def test_requests_on_a_lane_go_on_while_the_gateway_is_gone(stage: Stage) -> None:
    worker = stage.serving()
    with Client(stage.endpoint) as client:
        on_lane(client, worker)
        stage.gateway.kill()
        assert [add(client, value) for value in range(ANSWERS)] == list(range(1, ANSWERS + 1))


def test_a_lane_that_cannot_be_connected_costs_no_request(stage: Stage) -> None:
    worker = stage.serving()
    Path(worker.address.path).unlink()
    with Client(stage.endpoint) as client:
        assert [add(client, value) for value in range(ANSWERS)] == list(range(1, ANSWERS + 1))
    assert worker.figures().direct_requests == 0


def test_who_stood_by_is_left_and_what_waited_is_answered_by_the_next(stage: Stage) -> None:
    old = stage.serving()
    with Client(stage.endpoint) as client:
        on_lane(client, old)
        pending = [client.submit("adder", {"x": np.array([SLOW], np.float32)}) for _ in range(6)]
        new = stage.worker("version=2").bring_up()
        old.stand_by()
        stage.gateway.route("adder", "2", [new])
        versions = [request.result()["version"][0] for request in pending]
        assert versions == sorted(versions)
        assert versions[-1] == 2
        assert client.infer("adder", {"x": np.ones(1, np.float32)}).model_version == "2"
        until(lambda: add(client, 1) == 2 and new.figures().direct_requests, "the new lane")


@pytest.mark.usefixtures("twin")
def test_a_killed_worker_loses_no_request_of_a_lane(stage: Stage) -> None:
    doomed = stage.worker("slow_ms=5000").bring_up()
    stage.gateway.route("adder", "1", [doomed])
    with Client(stage.endpoint) as client:
        on_lane(client, doomed)
        pending = [client.submit("adder", {"x": np.array([SLOW], np.float32)}) for _ in range(5)]
        until(doomed.at_work, "the worker at work")
        doomed.kill()
        stage.gateway.route("adder", "1", [stage.worker("slow_ms=1").bring_up()])
        assert len([request.result() for request in pending]) == 5


@pytest.mark.usefixtures("twin")
def test_poison_on_a_lane_ends_two_workers_and_blames_nobody_else(stage: Stage) -> None:
    first = stage.serving()
    with Client(stage.endpoint) as guilty, Client(stage.endpoint) as innocent:
        on_lane(guilty, first)
        before = first.figures().direct_requests
        until(
            lambda: add(innocent, 1) == 2 and first.figures().direct_requests > before, "its lane"
        )
        slow = guilty.submit("adder", {"x": np.array([SLOW], np.float32)})
        poison = guilty.submit("adder", {"x": np.array([DIE], np.float32)})
        others = [innocent.submit("adder", {"x": np.ones(1, np.float32)}) for _ in range(4)]
        slow.result()
        first.process.wait(PATIENCE_S)
        guilty.live()  # reads what has come: the end of the lane
        second = stage.worker().bring_up()
        stage.gateway.route("adder", "1", [second])
        with pytest.raises(Internal, match="ended 2 workers"):
            poison.result()
        stage.gateway.route("adder", "1", [stage.worker().bring_up()])
        assert [float(one.result()["y"][0]) for one in others] == [2.0] * 4
    found = stage.gateway.unasked or [stage.gateway.hear(ctl.Poisoned)]
    assert len(found) == 1


def test_no_descriptor_outlives_its_client(stage: Stage) -> None:
    worker = stage.serving()

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with Client(stage.endpoint) as client:
        on_lane(client, worker)
    before = open_files()
    for _ in range(5):
        with Client(stage.endpoint) as client:
            for value in range(20):
                add(client, value)
    assert open_files() == before


def test_the_lane_client_printed_in_the_protocol_works(stage: Stage) -> None:
    worker = stage.serving()
    text = (ROOT / "docs/protocol.md").read_text()
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if LANE in code)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/protocol.md", "exec"), names)
    x = np.arange(30_000, dtype=np.float32)
    inputs = {"x": ("FP32", list(x.shape), x.tobytes())}
    answer = names["infer_on_lane"](worker.address.path, "adder", inputs)
    np.testing.assert_array_equal(np.frombuffer(answer["y"], np.float32), x + 1)
    with pytest.raises(AssertionError, match="expected"):
        names["infer_on_lane"](worker.address.path, "other", inputs)
