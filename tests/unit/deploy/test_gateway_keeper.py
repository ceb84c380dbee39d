"""The gateway as the daemon keeps it: a lane that was not there yet is told again."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from superbrain.deploy import gateway
from superbrain.deploy.child import Child, ChildError
from superbrain.deploy.gateway import GatewayKeeper
from superbrain.domain import ctl
from superbrain.wire.errors import Unavailable
from superbrain.wire.messages import ModelMetadata


class LateWorker:
    """Stands in for the gateway's process: the first orders find no worker behind the lane."""

    def __init__(self, late: int) -> None:
        self.heard: list[ctl.Message] = []
        self.there = asyncio.Event()
        self._late = late

    async def order(self, message: ctl.Message, *_: Any) -> ctl.Done:  # noqa: ANN401
        self.heard.append(message)
        if len(self.heard) <= self._late:
            raise ChildError(Unavailable.code, "lane 7.lane: no valid greeting")
        self.there.set()
        return ctl.Done()

    async def end(self) -> None:
        """End."""


def a_route(version: str) -> ctl.Route:
    metadata = ModelMetadata("ocr", [version], "superbrain", [], [])
    return ctl.Route("ocr", version, 1, [], metadata, queue_size=1, request_timeout_ms=1)


def keeper_of(child: LateWorker) -> GatewayKeeper:
    keeper = GatewayKeeper("ipc://x", lambda _poisoned: None)
    keeper._child = cast("Child", child)
    keeper._ready.set()
    return keeper


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "ROUTE_AGAIN_S", 0.0)


def test_a_worker_that_greets_late_gets_its_lane_without_another_route() -> None:
    async def tell() -> list[ctl.Message]:
        child = LateWorker(late=3)
        keeper = keeper_of(child)
        route = a_route("1.0.0")
        await keeper.route(route)
        await asyncio.wait_for(child.there.wait(), 10)
        await keeper.stop()
        assert child.heard == [route] * 4
        return child.heard

    assert asyncio.run(tell())


def test_what_is_told_again_is_the_newest_route() -> None:
    async def tell() -> None:
        child = LateWorker(late=2)
        keeper = keeper_of(child)
        await keeper.route(a_route("1.0.0"))
        await keeper.route(a_route("2.0.0"))
        await asyncio.wait_for(child.there.wait(), 10)
        await keeper.stop()
        assert [m.version for m in child.heard if isinstance(m, ctl.Route)][2:] == ["2.0.0"]

    asyncio.run(tell())


def test_a_model_that_is_forgotten_meanwhile_is_told_no_more() -> None:
    async def tell() -> None:
        child = LateWorker(late=1)
        keeper = keeper_of(child)
        await keeper.route(a_route("1.0.0"))
        await keeper.unroute("ocr")
        await asyncio.gather(*keeper._late.values())
        assert [type(message) for message in child.heard] == [ctl.Route, ctl.Unroute]
        await keeper.stop()

    asyncio.run(tell())


def test_a_lane_that_is_lost_is_made_again() -> None:
    async def tell() -> list[ctl.Message]:
        child = LateWorker(late=0)
        keeper = keeper_of(child)
        await keeper.route(a_route("1.0.0"))
        keeper._heard(ctl.LaneLost("ocr", 7, "expected a lane frame, found kind 200"))
        keeper._heard(ctl.LaneLost("ocr", 7))
        keeper._heard(ctl.LaneLost("gone", 8))
        await asyncio.gather(*keeper._late.values())
        await keeper.stop()
        return child.heard

    assert asyncio.run(tell()) == [a_route("1.0.0")] * 2


def test_a_lane_that_is_lost_while_the_route_is_told_again_is_made_once_more() -> None:
    class Losing(LateWorker):
        async def order(self, message: ctl.Message, *asked: Any) -> ctl.Done:  # noqa: ANN401
            if len(self.heard) == 1:
                lost = ctl.LaneLost("ocr", 7)  # heard before whoever has ordered goes on
                asyncio.get_running_loop().call_soon(keeper._heard, lost)
                await asyncio.sleep(0)
            return await super().order(message, *asked)

    async def tell() -> list[ctl.Message]:
        await keeper.route(a_route("1.0.0"))
        keeper._heard(ctl.LaneLost("ocr", 7))
        await asyncio.gather(*keeper._late.values())
        await keeper.stop()
        return child.heard

    child = Losing(late=0)
    keeper = keeper_of(child)
    assert asyncio.run(tell()) == [a_route("1.0.0")] * 3


def test_who_is_reached_is_known_while_the_gateway_is_there() -> None:
    traffic = ctl.ModelTraffic("ocr", 0, 0, 0, 0, 0, 0, ctl.Quantiles(), workers=[7])
    keeper = keeper_of(LateWorker(late=0))
    assert keeper.reached("ocr") is None
    keeper.pong = ctl.GatewayPong([traffic])
    assert keeper.reached("ocr") == [7]
    assert keeper.reached("page") is None
    keeper._ready.clear()
    assert keeper.reached("ocr") is None
