"""A signal's handler that raises, at every place where signals are heeded, harms nobody else.

Each test goes through the places one by one, each time with a client of its own.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.client import AsyncClient, Client, Pending, Result
from superbrain.transport import compiled
from tests.support.echo_host import VERSION_BY_GATEWAY, VERSION_BY_LANE, EchoHost
from tests.support.interrupts import InterruptAt, Interrupted
from tests.support.lone_client import PATIENCE_S
from tests.support.shortcuts import Shortcuts
from tests.support.twins import twin

__all__ = ["twin"]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("twin", "_shortcuts", "_collected_later"),
    # What a traceback still holds of a connection that was given up is collected with it.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

MOMENT_NS = 5_000_000
SMALL, LARGE = 1, 100_000  # a frame that comes with others, one that comes in pieces
ROADS: dict[str, tuple[int, dict[str, Any]]] = {
    "gateway": (SMALL, {}),
    "gateway, large": (LARGE, {}),
    "lane, as the last": (SMALL, {}),
    "lane, as the last, large": (LARGE, {}),
    "lane": (SMALL, {"priority": 1}),
    "lane, large": (LARGE, {"priority": 1}),
}


@pytest.fixture
def _collected_later() -> Iterator[None]:
    """Let no finalizer of others be interrupted, which would be lost."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def _shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be some, whatever other tests have imported."""
    Shortcuts(monkeypatch, MOMENT_NS)


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def host(tmp_path: Path, road: str) -> Iterator[EchoHost]:
    with EchoHost(tmp_path, lanes=road.startswith("lane")) as host:
        yield host


def x(value: float, size: int = SMALL) -> dict[str, Any]:
    return {"x": np.full(size, value, np.float32)}


def is_right(result: Result, value: float, size: int) -> bool:
    return bool((result["y"] == x(value, size)["x"]).all()) and result["y"].size == size


def bring_on_road(client: Client, road: str) -> None:
    """Ask until all further requests go by it."""
    size, _ = ROADS[road]
    version = VERSION_BY_LANE if road.startswith("lane") else VERSION_BY_GATEWAY
    short = "as the last" in road and compiled.loop() is not None
    seen = 0
    while seen < 4 or (short and not client._connection().shortcuts):
        seen += client.infer("m", x(1, size)).model_version == version


def places(ask: Callable[[InterruptAt], None]) -> int:
    """Let a request be asked that is interrupted at the first place, at the next, and so on."""
    place = 0
    while True:
        place += 1
        at = InterruptAt(place)
        ask(at)
        if not at.where:
            return place


def interrupted(at: InterruptAt, client: Client, size: int, **options: Any) -> None:  # noqa: ANN401
    with suppress(Interrupted):
        with at:
            result = client.infer("m", x(5, size), **options)
        assert not at.where, f"{at.where}: the interrupt was lost"
        assert is_right(result, 5, size)


def all_is_well(client: Client, size: int, at: InterruptAt) -> None:
    for value in range(3):
        assert is_right(client.infer("m", x(value, size)), value, size), at.where
    assert not client._connection()._lock.locked(), at.where


def test_a_request_that_is_interrupted_harms_none_after_it(host: EchoHost, road: str) -> None:
    size, options = ROADS[road]

    def ask(at: InterruptAt) -> None:
        with Client(host.endpoint, timeout=PATIENCE_S) as client:
            bring_on_road(client, road)
            interrupted(at, client, size, **options)
            all_is_well(client, size, at)

    assert places(ask) > 5


def test_the_first_request_that_is_interrupted_harms_none_after_it(
    host: EchoHost, road: str
) -> None:
    size, options = ROADS[road]

    def ask(at: InterruptAt) -> None:
        with Client(host.endpoint, timeout=PATIENCE_S) as client:
            interrupted(at, client, size, **options)
            all_is_well(client, size, at)

    assert places(ask) > 100


def test_what_was_under_way_before_an_interrupt_is_answered(host: EchoHost, road: str) -> None:
    size, options = ROADS[road]

    def ask(at: InterruptAt) -> None:
        with Client(host.endpoint, timeout=PATIENCE_S) as client:
            bring_on_road(client, road)
            host.holds = 3
            pending: list[Pending[Result]] = []
            pending += [client.submit("m", x(value, size)) for value in (11, 12)]
            interrupted(at, client, size, **options)
            host.holds = 0
            assert is_right(pending[0].result(), 11, size), at.where
            all_is_well(client, size, at)
            assert is_right(pending[1].result(), 12, size), at.where

    assert places(ask) > 30


def test_another_thread_that_waits_meanwhile_is_answered(host: EchoHost, road: str) -> None:
    """Also where the one that was interrupted read for both."""
    size, options = ROADS[road]

    def ask(at: InterruptAt) -> None:
        def other() -> Result:
            host.asked.wait()
            return client.infer("m", x(7, size))

        with (
            Client(host.endpoint, timeout=PATIENCE_S) as client,
            ThreadPoolExecutor(1) as pool,
        ):
            bring_on_road(client, road)
            host.holds = 2
            host.asked.clear()
            waiting = pool.submit(other)
            interrupted(at, client, size, **options)
            host.holds = 0
            host.asked.set()
            assert is_right(waiting.result(), 7, size), at.where
            all_is_well(client, size, at)

    assert places(ask) > 5


def test_a_task_is_answered_though_the_event_loop_was_interrupted(
    host: EchoHost, road: str
) -> None:
    size, options = ROADS[road]

    async def asked(client: AsyncClient, value: float) -> None:
        assert is_right(await client.infer("m", x(value, size), **options), value, size)

    def ask(at: InterruptAt) -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _loop, _context: None)  # what interrupts a callback
        client = AsyncClient(host.endpoint, timeout=PATIENCE_S)
        for value in range(4):
            loop.run_until_complete(asked(client, value))
        host.holds = 2
        other = loop.create_task(asked(client, 7))
        loop.run_until_complete(asyncio.sleep(0))
        with suppress(Interrupted), at:
            loop.run_until_complete(asked(client, 5))
        host.holds = 0
        loop.run_until_complete(asked(client, 6))
        with suppress(Interrupted):  # it may be the one
            loop.run_until_complete(other)
        client.close()
        loop.close()

    assert places(ask) > 30
