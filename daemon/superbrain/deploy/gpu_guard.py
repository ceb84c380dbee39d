"""Watches the GPUs: moves models away from one that cannot be believed, and back when it can again.

Which trouble counts, and for whom, `domain.gpu_rules` says. A model goes to the next rung of its
ladder that needs no GPU and that it is proven on; until then the old crew goes on, as long as it
can. Where no rung is left the version before takes over if it needs no GPU; else it is a fault,
which is told, and tried again.

When the GPUs have been well for a while, what had left one is proven again on the rung that it had,
and goes back. That is tried a few times, each after a longer pause.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from superbrain.deploy.child import ChildError
from superbrain.deploy.journal_file import JournalError
from superbrain.deploy.rung_move import MAY_MOVE, RungMove
from superbrain.deploy.step_times import concerns
from superbrain.domain import deployment as life
from superbrain.domain import gpu_rules
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.errors import BundleError
from superbrain.domain.gpu_rules import GPU_FAULT, GPU_LOST, RUNG_LOST, RUNG_REGAINED, GpuTrouble
from superbrain.domain.rungs import uses_gpu
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from superbrain.deploy.driver import Driver
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.services import Services
    from superbrain.deploy.stages import Stages
    from superbrain.domain.health import Problem
    from superbrain.host.gpu_watch import GpuWatch

log = logging.getLogger(__name__)

AGAIN_S = 60.0
STEADY_S = 60.0
_RETURN_AFTER_S = (0.0, 600.0, 3600.0)
_STEPS_LOOKED_AT = 100
_NO_RUNG_LEFT = "drop a bundle whose ladder ends in a rung that needs no GPU"


class GpuGuard:
    """Holds what serves against the GPUs it runs on.

    Args:
        gpus: what they say.
        every_s: seconds between two looks.
    """

    def __init__(
        self,
        journal: Journal,
        services: Services,
        stages: Stages,
        driver: Driver,
        gpus: GpuWatch,
        every_s: float,
    ) -> None:
        self._journal = journal
        self._services = services
        self._moves = RungMove(journal, stages)
        self._driver = driver
        self._gpus = gpus
        self._every_s = every_s
        self._moving: set[str] = set()
        self._again_at: dict[str, float] = {}
        self._told: set[str] = set()
        self._well_since = time.monotonic()
        self._returns: dict[int, int] = {}
        self._return_at: dict[int, float] = {}

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - it must not end what it guards
                event(log, Event.TASK_FAILED, logging.ERROR, str(error), exc_info=error)
            await asyncio.sleep(self._every_s)

    def look(self) -> None:
        """Ask the driver again, and act on what it said last."""
        self._gpus.look()
        found = self.troubles()
        self._tell(found)
        if not self._gpus.facts or any(trouble.leave for trouble in found):
            self._well_since = time.monotonic()
        for service in self._services.all():
            self._hold_against(service, found)

    def troubles(self) -> list[GpuTrouble]:
        """Say what is wrong with the GPUs now."""
        now = dt.datetime.now(dt.UTC)
        return gpu_rules.troubles(self._gpus.facts, now, silent_s=self._gpus.silent_s)

    def problems(self) -> list[Problem]:
        """Say it as the health report does."""
        return gpu_rules.problems(self.troubles())

    def unusable(self, rung: str) -> Reason | None:
        """Say why nothing may begin on this rung now; None when it may."""
        trouble = gpu_rules.unusable(rung, self._gpus.facts, self.troubles())
        return trouble.reason if trouble else None

    def _tell(self, found: list[GpuTrouble]) -> None:
        codes = {f"{one.gpu} {one.code} {one.leave}": one for one in found}
        for key in codes.keys() - self._told:
            event(log, Event.GPU_TROUBLE, logging.ERROR, codes[key].message, gpu=codes[key].gpu)
        self._told = set(codes)

    def _hold_against(self, service: ModelService, found: list[GpuTrouble]) -> None:
        crew, deployment = service.current, service.deployment
        if crew is None or deployment is None or deployment.state not in MAY_MOVE:
            return
        if service.name in self._moving:
            return
        pids = [worker.child.pid for worker in crew.workers]
        trouble = gpu_rules.must_leave(crew.bringup.rung, pids, self._gpus.facts, found)
        if trouble is not None:
            if time.monotonic() >= self._again_at.get(service.name, 0.0):
                self._again_at[service.name] = time.monotonic() + AGAIN_S
                self._begin(service, self._leave(service, deployment, trouble))
        elif service.fault is not None and service.fault.code in {GPU_LOST, GPU_FAULT}:
            service.fault = None  # a GPU that is there again is no fault any more
            self._again_at.pop(service.name, None)
        elif self._may_return(deployment):
            self._consider_return(service, deployment)

    def _begin(self, service: ModelService, move: Coroutine[Any, Any, None]) -> None:
        async def moved() -> None:
            try:
                await move
            finally:
                self._moving.discard(service.name)

        self._moving.add(service.name)
        self._driver.spawn(moved())

    # --- leaving ------------------------------------------------------------------------------

    async def _leave(
        self, service: ModelService, deployment: Deployment, trouble: GpuTrouble
    ) -> None:
        failure = await self._go_down(service, deployment, trouble)
        if failure and not self._go_back(deployment, trouble):
            message = f"{trouble.message}; {failure}"
            service.fault = Reason(trouble.code, message, trouble.mend)

    async def _go_down(
        self, service: ModelService, deployment: Deployment, trouble: GpuTrouble
    ) -> str:
        """Serve on the first later rung that proves and needs no GPU; else why there is none."""
        rungs = gpu_rules.rungs_without_gpu(deployment.ladder, deployment.rung_index)
        failure = f"its ladder has no rung without a GPU: {_NO_RUNG_LEFT}"
        for index in rungs:
            attempt = msgspec.structs.replace(deployment, rung_index=index)
            try:
                await self._moves.move(service, attempt, RUNG_LOST, trouble.message)
            except (ChildError, BundleError, JournalError) as error:
                failure = f"{attempt.rung} did not take its place: {error.message}"
            else:
                service.fault = None
                self._again_at.pop(service.name, None)
                message = f"{trouble.message}: moved to {attempt.rung}, proven there"
                await self._moved(service, attempt, message, trouble.mend)
                return ""
        return failure

    def _go_back(self, deployment: Deployment, trouble: GpuTrouble) -> bool:
        """Go back to the version before, if that one needs no GPU; whether it does."""
        previous = self._journal.get(deployment.predecessor)
        if previous is None or uses_gpu(previous.rung):
            return False
        return self._services.given_up(deployment.name, life.BudgetSpent(trouble.reason))

    async def _moved(
        self, service: ModelService, attempt: Deployment, message: str, mend: str = ""
    ) -> None:
        """Tell that it has moved, and end the crew that it has left."""
        on_gpu = uses_gpu(attempt.rung)
        name = Event.GPU_RETURNED if on_gpu else Event.GPU_LEFT
        event(log, name, logging.WARNING, message, model=attempt.name, rung=attempt.rung)
        service.happened("ReturnedToGpu" if on_gpu else "LeftGpu", message, mend)
        await service.end_warm(attempt.id)

    # --- returning ----------------------------------------------------------------------------

    def _may_return(self, deployment: Deployment) -> bool:
        """Whether the GPUs have been well for long enough for one that does not run on one."""
        now, tries = time.monotonic(), self._returns.get(deployment.id, 0)
        if deployment.state is not State.LIVE or uses_gpu(deployment.rung):
            return False
        well = now - self._well_since >= STEADY_S
        due = now >= self._return_at.get(deployment.id, 0.0)
        return well and due and tries < len(_RETURN_AFTER_S)

    def _consider_return(self, service: ModelService, deployment: Deployment) -> None:
        """Go back to the rung that it left because of a GPU, if it is such a one."""
        steps = self._journal.history(deployment_id=deployment.id, limit=_STEPS_LOOKED_AT)
        home = gpu_rules.home(deployment.ladder, [(step.event, step.rung) for step in steps])
        if home is None:
            self._return_at[deployment.id] = time.monotonic() + AGAIN_S
            return
        attempt = msgspec.structs.replace(deployment, rung_index=home)
        self._begin(service, self._return(service, attempt))

    async def _return(self, service: ModelService, attempt: Deployment) -> None:
        message = f"the GPU is well again: moved to {attempt.rung}, proven there"
        tries = self._returns.get(attempt.id, 0)
        self._returns[attempt.id] = tries + 1
        try:
            await self._moves.move(service, attempt, RUNG_REGAINED, message)
        except (ChildError, BundleError, JournalError) as error:
            pause_s = _RETURN_AFTER_S[min(tries + 1, len(_RETURN_AFTER_S) - 1)]
            self._return_at[attempt.id] = time.monotonic() + pause_s
            found = f"{attempt.rung} cannot take over again: {error.message}"
            event(log, Event.GPU_TROUBLE, logging.WARNING, found, **concerns(attempt))
        else:
            self._returns.pop(attempt.id)
            await self._moved(service, attempt, message)
