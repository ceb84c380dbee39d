"""Watches the GPUs, and moves models away from one that is lost or cannot be believed any more.

Which trouble counts, and for whom, `domain.gpu_rules` says. A model goes to the next rung of its
ladder that needs no GPU, as every candidate comes into service: a fresh crew proves every golden
case there, then the traffic moves between two requests. Until then the old crew goes on, as long as
it can. Where no rung is left the version before takes over if it needs no GPU; else it is a fault,
which is told, and tried again.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import ChildError
from superbrain.domain import deployment as life
from superbrain.domain import gpu_rules
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.errors import BundleError
from superbrain.domain.gpu_rules import GPU_FAULT, GPU_LOST, GpuTrouble
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from superbrain.deploy.driver import Driver
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.services import Services
    from superbrain.deploy.stages import Stages
    from superbrain.domain.health import Problem
    from superbrain.host.gpu_watch import GpuWatch

log = logging.getLogger(__name__)

AGAIN_S = 60.0
_MAY_MOVE = frozenset({State.PROBATION, State.LIVE})
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
        self._stages = stages
        self._driver = driver
        self._gpus = gpus
        self._every_s = every_s
        self._moving: set[str] = set()
        self._again_at: dict[str, float] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            self.look()
            await asyncio.sleep(self._every_s)

    def look(self) -> None:
        """Ask the driver again, and act on what it said last."""
        self._gpus.look()
        found = self.troubles()
        self._tell(found)
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
        if crew is None or deployment is None or deployment.state not in _MAY_MOVE:
            return
        pids = [worker.child.pid for worker in crew.workers]
        trouble = gpu_rules.must_leave(crew.bringup.rung, pids, self._gpus.facts, found)
        if trouble is None:
            self._again_at.pop(service.name, None)
            _forgive(service)
        elif self._due(service.name):
            self._moving.add(service.name)
            self._driver.spawn(self._leave(service, deployment, trouble))

    def _due(self, name: str) -> bool:
        return name not in self._moving and time.monotonic() >= self._again_at.get(name, 0.0)

    # --- leaving ------------------------------------------------------------------------------

    async def _leave(
        self, service: ModelService, deployment: Deployment, trouble: GpuTrouble
    ) -> None:
        try:
            failure = await self._go_down(service, deployment, trouble)
            if failure and not self._go_back(deployment, trouble):
                message = f"{trouble.message}; {failure}"
                service.fault = Reason(trouble.code, message, trouble.mend)
                self._again_at[service.name] = time.monotonic() + AGAIN_S
        finally:
            self._moving.discard(service.name)

    async def _go_down(
        self, service: ModelService, deployment: Deployment, trouble: GpuTrouble
    ) -> str:
        """Serve on the first later rung that proves and needs no GPU; else why there is none."""
        rungs = gpu_rules.rungs_without_gpu(deployment.ladder, deployment.rung_index)
        failure = f"its ladder has no rung without a GPU: {_NO_RUNG_LEFT}"
        for index in rungs:
            attempt = msgspec.structs.replace(deployment, rung_index=index)
            try:
                await self._move(service, attempt, trouble)
            except (ChildError, BundleError) as error:
                failure = f"{attempt.rung} did not take its place: {error.message}"
            else:
                return ""
        return failure

    async def _move(self, service: ModelService, attempt: Deployment, trouble: GpuTrouble) -> None:
        crew = await self._stages.revive(attempt)

        def commit(_replaced: Deployment | None) -> Deployment:
            return self._write_down(attempt, trouble)

        try:
            await service.switch(crew, commit)
        except BaseException:
            await crew.end()
            raise
        service.fault = None
        message = f"{trouble.message}: moved to {attempt.rung}, proven there"
        event(log, Event.GPU_LEFT, logging.WARNING, message, model=attempt.name, rung=attempt.rung)
        service.happened("LeftGpu", message, trouble.mend)
        await service.end_warm(attempt.id)  # the crew that it has left

    def _write_down(self, attempt: Deployment, trouble: GpuTrouble) -> Deployment:
        """Make another rung of the current deployment the one that counts.

        Raises:
            ChildError: another deployment has become the current one meanwhile.
        """
        current = self._journal.current(attempt.name)
        if current is None or current.id != attempt.id or current.state not in _MAY_MOVE:
            raise ChildError("OVERTAKEN", f"{attempt.name} {attempt.version} serves no longer")
        after = msgspec.structs.replace(current, rung_index=attempt.rung_index)
        now = dt.datetime.now(dt.UTC)
        self._journal.record(current, "RungChanged", after, now, trouble.message)
        return after

    def _go_back(self, deployment: Deployment, trouble: GpuTrouble) -> bool:
        """Go back to the version before, if that one needs no GPU; whether it does."""
        previous = self._journal.get(deployment.predecessor)
        if previous is None or gpu_rules.runs_on_gpu(previous.rung):
            return False
        return self._services.given_up(deployment.name, life.BudgetSpent(trouble.reason))


def _forgive(service: ModelService) -> None:
    """A GPU that is there again is no fault any more."""
    if service.fault is not None and service.fault.code in {GPU_LOST, GPU_FAULT}:
        service.fault = None
