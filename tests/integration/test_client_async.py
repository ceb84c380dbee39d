"""The client for asyncio."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from superbrain.client import AsyncClient, ClientClosed, DeadlineExceeded, Unavailable
from superbrain.client.fake import FakeServer
from tests.support.fake_servers import MODELS, ServerProcess, client, number, number_of, server

__all__ = ["client", "server"]
pytestmark = pytest.mark.integration


def test_two_hundred_tasks_share_one_async_client(server: FakeServer) -> None:
    async def main() -> list[int]:
        async with AsyncClient(server.endpoint) as client:
            requests = [client.infer("echo", number(i)) for i in range(200)]
            return [number_of(result) for result in await asyncio.gather(*requests)]

    assert asyncio.run(main()) == list(range(200))


def test_a_cancelled_task_forgets_its_request(server: FakeServer) -> None:
    async def main() -> int:
        async with AsyncClient(server.endpoint) as client:
            await client.infer("echo", number(0))
            task = asyncio.create_task(client.infer("nap", {"seconds": np.array(0.1)}))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(client._link.ledger) == 0
            return number_of(await client.infer("echo", number(1)))

    assert asyncio.run(main()) == 1


def test_the_async_client_answers_like_the_other(server: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(server.endpoint) as client:
            assert await client.live()
            assert not await client.ready()
            assert await client.ready("echo")
            await client.wait_ready("echo", timeout=5)
            assert (await client.server()).name == "superbrain-fake"
            assert [model.name for model in await client.models()] == list(MODELS)
            assert (await client.metadata("typed")).versions == ["2.0.0"]
            assert (await client.infer("typed", {"x": [1]}))["y"].dtype == np.float32
            many = client.infer_many("echo", (number(i) for i in range(50)), window=4)
            assert [number_of(result) async for result in many] == list(range(50))
            with pytest.raises(DeadlineExceeded):
                await client.infer("nap", {"seconds": 0.2}, timeout=0.05)
            with pytest.raises(Unavailable, match="golden cases"):
                await client.infer("proving", number(1))
            task = asyncio.create_task(client.infer("nap", {"seconds": 0.2}))
            await asyncio.sleep(0.02)
        with pytest.raises(ClientClosed):
            await task
        with pytest.raises(ClientClosed):
            await client.infer("echo", number(1))

    asyncio.run(main())


def test_async_requests_survive_a_restart_and_nobody_there_is_said(tmp_path: Path) -> None:
    async def main(server: ServerProcess) -> list[int]:
        async with AsyncClient(server.endpoint) as client:
            await client.infer("echo", number(0))
            tasks = [asyncio.create_task(client.infer("echo", number(i))) for i in range(100)]
            await tasks[5]
            server.kill()
            await asyncio.to_thread(server.start)
            return [number_of(result) for result in await asyncio.gather(*tasks)]

    async def nobody() -> None:
        async with AsyncClient(f"ipc://{tmp_path}/none.sock") as client:
            with pytest.raises(Unavailable, match="no superbrain gateway"):
                await client.infer("echo", number(1))

    with ServerProcess(tmp_path) as server:
        assert asyncio.run(main(server)) == list(range(100))
    asyncio.run(nobody())
