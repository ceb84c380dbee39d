"""The gateway as the daemon keeps it: one process, restarted when it dies, told every route.

The routes are the daemon's own record of what the gateway must know; a gateway that was restarted
gets all of them again before it sees a request for any model.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import Child, ChildError
from superbrain.domain import ctl
from superbrain.domain.policy import gateway_restart_delay_s
from superbrain.domain.records import RecordPolicy
from superbrain.domain.totals import GatewayTotals
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.wire.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

GATEWAY_MODULE = "superbrain.serve.gateway"
START_TIMEOUT_S = 20.0
ROUTE_TIMEOUT_S = 20.0
ROUTE_AGAIN_S = 1.0


class GatewayKeeper:
    """Keeps one gateway running and its routes up to date.

    `on_records` is given what it tells of single requests.
    """

    def __init__(
        self,
        endpoint: str,
        on_poisoned: Callable[[ctl.Poisoned], None],
        group: int | None = None,
        records: RecordPolicy | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.restarts = 0
        self.started_at: dt.datetime | None = None
        self.pong = ctl.GatewayPong(models=[])
        self.totals = GatewayTotals()
        self._on_poisoned = on_poisoned
        self._group = group
        self._records = records or RecordPolicy()
        self.on_records: Callable[[str, ctl.Records], None] = lambda _name, _records: None
        self._routes: dict[str, ctl.Route] = {}
        self._child: Child | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._late: dict[str, asyncio.Task[None]] = {}
        self._lost: set[str] = set()  # models a lane to which ended since they were told of last

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child is not None and self._child.alive else None

    async def start(self) -> None:
        """Start the gateway with all routes it has been given so far.

        Raises:
            ChildError: it could not bind its socket, with the reason.
        """
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the gateway."""
        tasks = [*self._late.values(), *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._child is not None:
            await self._child.end()

    async def route(self, route: ctl.Route) -> None:
        """Make `route` the way to its model; returns when requests go there.

        A gateway that dies meanwhile learns it when it is back.
        """
        self._routes[route.model] = route
        await self._tell(route)

    async def prepare(self, route: ctl.Route) -> None:
        """Let `route`, which comes next, hold as soon as those that answer now have said GOODBYE.

        It is a shorter way and no promise: only `route` makes it the way.
        """
        await self._tell(ctl.Prepare(route))

    async def unroute(self, model: str) -> None:
        """Forget a model."""
        if self._routes.pop(model, None) is not None:
            await self._tell(ctl.Unroute(model))

    async def ping(self, timeout_s: float) -> bool:
        """Refresh the gateway's figures; False when it does not answer."""
        pong = await self._child.ping(ctl.GatewayPong, timeout_s) if self._child else None
        if pong is not None:
            self.pong = pong
            self.totals.add(pong)
        return pong is not None

    @property
    def hidden(self) -> bool:
        """Whether somebody has removed the file of its socket: no new client finds it."""
        return self._ready.is_set() and not Path(self.endpoint.removeprefix("ipc://")).exists()

    def kill(self) -> None:
        """End a gateway that no longer answers; the keeper starts another."""
        if self._child is not None:
            self._child.kill()

    async def _tell(self, message: ctl.Message) -> None:
        child = self._child
        if child is None or not self._ready.is_set():
            return
        try:
            await self._order(child, message)
        except ChildError as error:
            event(log, Event.GATEWAY_DIED, level=logging.ERROR, message=error.message)
            child.kill()

    async def _order(self, child: Child, message: ctl.Message) -> None:
        """Give one order; a lane that nobody answers on is no fault of the gateway.

        Either the worker behind it has died, and whoever replaces it routes again, or it greets
        late: the same route is told again until one or the other has happened.
        """
        try:
            await child.order(message, ctl.Done, ROUTE_TIMEOUT_S)
        except ChildError as error:
            if error.code != Unavailable.code:
                raise
            log.warning("gateway: %s", error.message)
            if isinstance(message, ctl.Route):
                self._tell_later(message)

    def _lane_lost(self, lost: ctl.LaneLost) -> None:
        """Tell the route again: a worker that has died is not in it any more by then."""
        if lost.reason:
            event(
                log,
                Event.GATEWAY_LANE_LOST,
                logging.ERROR,
                lost.reason,
                model=lost.model,
                worker=lost.worker_id,
            )
        route = self._routes.get(lost.model)
        if route is not None:
            self._lost.add(lost.model)
            self._tell_later(route)

    def reached(self, model: str) -> list[int] | None:
        """Give the workers of a model that the gateway has a lane to; None when it is not known."""
        if not self._ready.is_set():
            return None
        return next((one.workers for one in self.pong.models if one.model == model), None)

    def _tell_later(self, route: ctl.Route) -> None:
        """Look after a lane that was not there yet, for as long as its route is the one."""
        waiting = self._late.get(route.model)
        if waiting is None or waiting.done() or waiting is asyncio.current_task():
            self._late[route.model] = asyncio.create_task(self._tell_again(route.model))

    async def _tell_again(self, model: str) -> None:
        """Tell what holds by then; once more if a lane was lost while that was told."""
        told = False
        while model in self._lost or not told:
            await asyncio.sleep(ROUTE_AGAIN_S)
            await self._ready.wait()
            self._lost.discard(model)
            told, newest = True, self._routes.get(model)
            if newest is not None:
                await self._tell(newest)

    async def _spawn(self) -> None:
        bound = asyncio.Event()

        def heard(message: ctl.Message) -> None:
            if isinstance(message, ctl.GatewayReady):
                bound.set()
            else:
                self._heard(message)

        arguments = ["--endpoint", self.endpoint]
        if self._group is not None:
            arguments += ["--group", str(self._group)]
        if self._records.on:
            arguments += ["--records", msgspec.json.encode(self._records).decode()]
        child = await Child.spawn("gateway", GATEWAY_MODULE, arguments, heard)
        self._child = child
        self.totals.begin_anew()
        waits = [asyncio.create_task(bound.wait()), asyncio.create_task(child.exited.wait())]
        await asyncio.wait(waits, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not bound.is_set():
            child.kill()
            await child.exited.wait()
            mend = (
                "Stop whatever uses the endpoint, or set another one in [serve] endpoint; the "
                "service's user must be a member of [serve] group"
            )
            raise ChildError("GATEWAY_NOT_STARTED", child.epitaph(), mend=mend)
        self.started_at = dt.datetime.now(dt.UTC)
        try:
            await self._tell_everything(child)
        except BaseException:
            child.kill()
            await child.exited.wait()
            raise
        self._ready.set()
        event(log, Event.GATEWAY_STARTED, pid=child.pid, endpoint=self.endpoint)

    def _heard(self, message: ctl.Message) -> None:
        if isinstance(message, ctl.Poisoned):
            self._on_poisoned(message)
        elif isinstance(message, ctl.LaneLost):
            self._lane_lost(message)
        elif isinstance(message, ctl.Records):
            self.on_records("gateway", message)

    async def _tell_everything(self, child: Child) -> None:
        """Give a new gateway every route, also those that change meanwhile, then let it open."""
        told: dict[str, ctl.Route] = {}
        await self._tell_rest(child, told)
        await self._order(child, ctl.Open())
        await self._tell_rest(child, told)

    async def _tell_rest(self, child: Child, told: dict[str, ctl.Route]) -> None:
        """Tell what differs from `told`; when this returns nothing does, until the next await."""
        while told != self._routes:
            for model in [*told.keys() - self._routes.keys()]:
                await self._order(child, ctl.Unroute(model))
                del told[model]
            for route in [r for r in self._routes.values() if told.get(r.model) is not r]:
                await self._order(child, route)
                told[route.model] = route

    async def _keep(self) -> None:
        deaths: list[float] = []
        while True:
            assert self._child is not None  # noqa: S101 - started before
            await self._child.exited.wait()
            self._ready.clear()
            event(log, Event.GATEWAY_DIED, level=logging.ERROR, message=self._child.epitaph())
            while not self._ready.is_set():
                deaths = [*deaths[-20:], time.monotonic()]
                await asyncio.sleep(gateway_restart_delay_s(deaths, deaths[-1]))
                self.restarts += 1
                with contextlib.suppress(ChildError):
                    await self._spawn()
