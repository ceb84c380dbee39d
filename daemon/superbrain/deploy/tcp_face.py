"""The TCP face as the daemon keeps it: one process, started again when it ends, never waited for.

Local programs must not depend on a network address or a key file: while the face cannot start, the
host serves as if TCP were off, `problem` says what is wrong, and it is tried again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING

from superbrain.deploy.child import Child, ChildError
from superbrain.domain import ctl
from superbrain.domain.health import Problem
from superbrain.domain.policy import restart_delay_s
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

MODULE = "superbrain.serve.tcp_face"
START_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 10.0
SILENT_PINGS = 3
_DEATHS_KEPT = 20


class TcpFaceKeeper:
    """Keeps the face running.

    Args:
        endpoints: where it listens.
        arguments: everything else that the process is told on its command line.
    """

    def __init__(self, endpoints: Sequence[str], arguments: Sequence[str]) -> None:
        self.endpoints = list(endpoints)
        self.restarts = 0
        self.started_at: dt.datetime | None = None
        self.pong = ctl.TcpPong()
        self.problem: Problem | None = None
        binds = [word for endpoint in endpoints for word in ("--bind", endpoint)]
        self._arguments = [*binds, *arguments]
        self._child: Child | None = None
        self._open = False
        self._refusals: list[ctl.TcpRefused] = []
        self._silent = 0
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it serves."""
        return self._child.pid if self._child and self._child.alive and self._open else None

    def start(self) -> None:
        """Begin to keep a face running."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._child is not None:
            await self._child.end()

    async def check(self, timeout_s: float) -> None:
        """Refresh the figures; end a face that has not answered several times."""
        if self._child is None or self.pid is None:
            return
        pong = await self._child.ping(ctl.TcpPong, timeout_s)
        if pong is not None:
            self.pong, self._silent = pong, 0
            return
        self._silent += 1
        if self._silent >= SILENT_PINGS:
            self._child.kill()

    async def read_clients(self) -> None:
        """Let it read again who may connect; what is wrong with the folder becomes `problem`."""
        if self._child is None or self.pid is None:
            return
        try:
            await self._child.order(ctl.ReadClients(), ctl.Done, READ_TIMEOUT_S)
        except ChildError as error:
            self._report(error.message, error.mend)
        else:
            self.problem = None

    async def _keep(self) -> None:
        deaths: list[float] = []
        while True:
            await self._run_once()
            self.pong = ctl.TcpPong()
            now = time.monotonic()
            deaths = [*deaths[-_DEATHS_KEPT:], now]
            await asyncio.sleep(restart_delay_s(deaths, now))
            self.restarts += 1

    async def _run_once(self) -> None:
        """Start a face and wait for its end."""
        self._open, self._silent = False, 0
        self._refusals.clear()
        try:
            self._child = await Child.spawn("TCP face", MODULE, self._arguments, self._heard)
        except ChildError as error:
            self._report(error.message, error.mend)
            return
        patience = asyncio.get_running_loop().call_later(START_TIMEOUT_S, self._give_up)
        try:
            await self._child.exited.wait()
        finally:
            patience.cancel()
        if self._refusals:
            self._report(self._refusals[0].message, self._refusals[0].mend)
        else:
            event(log, Event.TCP_FACE_DIED, logging.ERROR, self._child.epitaph())
            self._report(self._child.epitaph(), "It is started again")

    def _give_up(self) -> None:
        if not self._open and self._child is not None:
            self._child.kill()

    def _heard(self, message: ctl.Message) -> None:
        if isinstance(message, ctl.TcpRefused):
            self._refusals.append(message)
        elif isinstance(message, ctl.TcpReady) and self._child is not None:
            self._open, self.problem = True, None
            self.started_at = dt.datetime.now(dt.UTC)
            event(log, Event.TCP_FACE_STARTED, pid=self._child.pid, endpoints=self.endpoints)

    def _report(self, message: str, mend: str) -> None:
        """Take note of what keeps it closed; said once, however often it is tried."""
        problem = Problem("critical", "tcp", f"nobody can connect by TCP: {message}", mend)
        if problem != self.problem:
            event(log, Event.TCP_FACE_CLOSED, logging.ERROR, message, mend=mend)
        self.problem = problem
