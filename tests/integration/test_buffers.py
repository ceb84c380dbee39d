"""`Client.buffers`: shared memory without ceremony, whatever happens to lanes meanwhile."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import numpy as np
import pytest

from superbrain.client import AsyncClient, Client, DeadlineExceeded, InvalidArgument
from superbrain.domain import ctl
from superbrain.wire.messages import InterfaceTensor, ModelMetadata
from tests.support.fake_worker import REFUSE, SLOW
from tests.support.processes import Stage, WorkerChild, until

pytestmark = pytest.mark.integration
PATIENCE_S = 20.0
SIZE = 100_000
INTERFACE = ModelMetadata(
    "adder",
    ["1"],
    "superbrain",
    [InterfaceTensor("x", "FP32", [-1])],
    [InterfaceTensor("y", "FP32", [SIZE]), InterfaceTensor("version", "INT64", [-1])],
)


def route(stage: Stage, *workers: WorkerChild) -> None:
    lanes = [worker.address for worker in workers]
    number = workers[0].load.deployment_id
    stage.gateway.order(ctl.Route("adder", "1", number, lanes, INTERFACE, 64, 20_000), ctl.Done)


def serving(stage: Stage, recipe: str = "") -> WorkerChild:
    worker = stage.worker(recipe).bring_up()
    route(stage, worker)
    return worker


def regions(worker: WorkerChild) -> int:
    maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
    return maps.count("memfd:superbrain-tensors")


def test_inputs_and_fixed_outputs_lie_in_shared_memory(stage: Stage) -> None:
    worker = serving(stage)
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        for n in range(20):
            buffers["x"][:] = n
            result = buffers.infer()
            np.testing.assert_array_equal(result["y"], np.full(SIZE, n + 1, np.float32))
            assert result["version"].tolist() == [1]
        until(lambda: buffers.infer() and regions(worker) == 2, "both regions in the worker")
        buffers["x"][:] = 7
        first = buffers.infer()["y"]
        buffers["x"][:] = 8
        second = buffers.infer()["y"]
        assert np.shares_memory(first, second)
        assert first[0] == 9
    until(lambda: regions(worker) == 0, "the worker to let go of the memory")


@pytest.mark.parametrize("outputs", [True, False])
def test_without_lanes_the_same_call_answers_the_same(stage: Stage, *, outputs: bool) -> None:
    worker = serving(stage)
    with (
        Client(stage.endpoint, lanes=False) as client,
        client.buffers("adder", outputs=outputs, x=(SIZE,)) as buffers,
    ):
        buffers["x"][:] = 3
        for _ in range(5):
            assert buffers.infer()["y"][-1] == 4
    assert regions(worker) == 0


def test_a_new_worker_gets_the_memory_by_itself(stage: Stage) -> None:
    first = serving(stage)
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        buffers["x"][:] = 1
        until(lambda: buffers.infer()["y"][0] == 2 and regions(first), "the memory in the first")
        second = stage.worker().bring_up()
        first.stand_by()
        route(stage, second)
        until(lambda: buffers.infer()["y"][0] == 2 and regions(second), "the memory in the next")
        second.kill()
        third = stage.worker().bring_up()
        route(stage, third)
        until(lambda: buffers.infer()["y"][0] == 2 and regions(third), "the memory in the last")


def test_a_worker_that_takes_no_more_regions_is_asked_inline(stage: Stage) -> None:
    worker = serving(stage)
    with Client(stage.endpoint) as client:
        made = [client.buffers("adder", x=(SIZE,)) for _ in range(12)]  # two regions each, of 16
        until(lambda: made[0].infer() and regions(worker), "a lane")
        for number, buffers in enumerate(made):
            buffers["x"][:] = number
            assert buffers.infer()["y"][0] == number + 1
            assert buffers.infer()["y"][0] == number + 1
        assert regions(worker) == 16
        for buffers in made:
            buffers.close()


def test_an_answer_that_comes_too_late_writes_where_nobody_looks(stage: Stage) -> None:
    worker = serving(stage, "slow_ms=300")
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        buffers["x"][:] = 1
        until(lambda: buffers.infer() and regions(worker), "a lane")
        before = buffers.infer()["y"]
        buffers["x"][0] = SLOW
        with pytest.raises(DeadlineExceeded):
            buffers.infer(timeout=0.05)
        buffers["x"][:] = 5
        after = buffers.infer()["y"]
        assert after[0] == 6
        assert not np.shares_memory(before, after)


def test_an_error_leaves_the_buffers_usable(stage: Stage) -> None:
    serving(stage)
    with Client(stage.endpoint) as client, client.buffers("adder", x=(SIZE,)) as buffers:
        for _ in range(3):
            buffers["x"][:] = REFUSE
            with pytest.raises(InvalidArgument, match="zero or more"):
                buffers.infer()
            buffers["x"][:] = 1
            assert buffers.infer()["y"][0] == 2


def test_an_output_beyond_its_room_is_said_and_a_shape_that_misfits_too(stage: Stage) -> None:
    serving(stage)
    with Client(stage.endpoint) as client:
        with pytest.raises(InvalidArgument, match="found no shape"):
            client.buffers("adder")
        with pytest.raises(InvalidArgument, match=r"found \[2, 2\]"):
            client.buffers("adder", x=(2, 2))
        with pytest.raises(InvalidArgument, match="Did you mean"):
            client.buffers("adder", xx=(2,))
        with client.buffers("adder", x=(2,)) as buffers, pytest.raises(KeyError, match="there are"):
            buffers["image"]


def test_tasks_have_buffers_of_their_own(stage: Stage) -> None:
    worker = serving(stage)

    async def talk() -> list[float]:
        async with AsyncClient(stage.endpoint) as client:

            async def ask(value: float) -> float:
                with await client.buffers("adder", x=(SIZE,)) as buffers:
                    for _ in range(5):
                        buffers["x"][:] = value
                        answer = float((await buffers.infer())["y"][-1])
                    return answer

            return await asyncio.gather(*(ask(n) for n in range(8)))

    assert asyncio.run(talk()) == list(range(1, 9))
    until(lambda: regions(worker) == 0, "the worker to let go of the memory")


def test_no_descriptor_is_left_and_memory_of_a_closed_client_too(stage: Stage) -> None:
    serving(stage)

    def open_files() -> int:
        gc.collect()  # what earlier tests left
        return len(list(Path("/proc/self/fd").iterdir()))

    with Client(stage.endpoint) as client:
        client.models()
    before = open_files()
    client = Client(stage.endpoint)
    buffers = client.buffers("adder", x=(SIZE,))
    for _ in range(5):
        buffers.infer()
    client.close()
    buffers.close()
    buffers.close()
    assert open_files() == before
