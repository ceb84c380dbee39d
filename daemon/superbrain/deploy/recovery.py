"""Recovery: after a start, everything that served before serves again, proven again.

Requests for it wait in the gateway meanwhile. What cannot come back on the rung it had is tried on
the later ones, or, where the fastest was chosen, on the next fastest; then its predecessor is
brought back; where there is none that may serve, callers are told so, and another try follows
every `AGAIN_S` seconds, and when its bundle is put back or another trust counts. Then all that was
under way goes on from what was written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import ChildError
from superbrain.deploy.driver import JOURNAL_AGAIN_S
from superbrain.deploy.failing_disk import disk_may_fail, journal_may_fail
from superbrain.deploy.journal_file import JournalError
from superbrain.deploy.step_times import concerns
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.errors import BundleError, TrustUnusable
from superbrain.domain.gpu_rules import RUNG_LOST, lost_gpu
from superbrain.domain.returning import not_returned, rungs_to_return_on
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.bundle.store import Store
    from superbrain.deploy.driver import Driver
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.services import Services
    from superbrain.deploy.stages import Stages

log = logging.getLogger(__name__)

AGAIN_S = 15.0
OVERTAKEN = "OVERTAKEN"
CUT_SHORT_WITHIN = dt.timedelta(hours=1)  # what ended earlier has had all that follows
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)  # before each try with a process that died


class Recovery:
    """Brings back what the journal says.

    `why_stopped` says why a current deployment must not be brought back; None when it may.
    """

    def __init__(
        self, journal: Journal, store: Store, services: Services, stages: Stages, driver: Driver
    ) -> None:
        self._journal = journal
        self._store = store
        self._services = services
        self._stages = stages
        self._driver = driver
        self._again_now = asyncio.Event()
        self._not_again: dict[int, Reason] = {}
        self.why_stopped: Callable[[Deployment], Reason | None] = lambda _current: None
        driver.put_back.on_done = self.try_again
        stages.outages.bring_back = self.bring_back

    async def hold(self) -> None:
        """Let requests for everything that served before wait; to be called before any arrive."""
        for deployment in self._all_current():
            await self._hold(deployment)

    async def recover(self) -> None:
        """Bring every current deployment back, proven again, then go on with all unfinished."""
        with disk_may_fail():
            self._store.sweep_staging()
        current = self._all_current()
        waiting = [one for one in current if not self._driver.is_under_way(one)]
        await asyncio.gather(*(self._bring_back(deployment) for deployment in waiting))
        self._cut_short()
        serving = {deployment.id for deployment in current}
        for deployment in self._journal.in_states({*life.UNFINISHED, State.DRAINING}):
            if deployment.id not in serving:
                self._resume_or_later(deployment)
        for deployment in self._journal.in_states((State.ROLLING_BACK,)):
            if deployment.id not in serving:  # its predecessor was made current, and nothing more
                self._driver.spawn(self._driver.inject(deployment.id, life.PreviousReady()))
        self._finish_last()
        for deployment in self._journal.in_states((State.FAILED,)):
            newest = self._journal.of_model(deployment.name, 1)
            if newest and newest[0].id == deployment.id:
                self._driver.retry_later(deployment)
        for name in self._journal.models():
            self._driver.spawn(self._driver.supersede(name))
        await self._driver.collect()

    def _cut_short(self) -> None:
        """End the outage in which the daemon ended; its candidate goes on with its next rung."""
        with journal_may_fail():
            self._not_again = self._stages.outages.after_restart()

    async def bring_back(self, deployment: Deployment) -> None:
        """Let a current deployment serve that stopped to make room; its state goes on by itself."""
        with journal_may_fail():
            await self._revive(deployment, resume=False)

    def try_again(self) -> None:
        """Try at once what could not come back: what stood in the way may be mended."""
        self._again_now.set()

    def _all_current(self) -> list[Deployment]:
        found = (self._journal.current(name) for name in self._journal.models())
        return [deployment for deployment in found if deployment is not None]

    async def _hold(self, deployment: Deployment) -> None:
        manifest = self._stages.manifest(deployment)
        await self._services.of(deployment.name).hold(manifest, deployment)

    def _finish_last(self) -> None:
        """Do again what follows an end that was the last thing to be written down, of late."""
        since = dt.datetime.now(dt.UTC) - CUT_SHORT_WITHIN
        for step in self._journal.history(limit=1):
            ended = self._journal.get(step.deployment_id)
            if ended is not None and ended.state in life.ENDED and step.at > since:
                self._driver.run(ended, life.ON_ENTRY[ended.state])

    def _resume(self, deployment: Deployment) -> None:
        resumed, commands = life.resume(deployment)
        if resumed is not deployment:
            self._journal.record(deployment, "Resumed", resumed, dt.datetime.now(dt.UTC))
        self._driver.run(resumed, commands)

    def _resume_or_later(self, deployment: Deployment) -> None:
        """Go on with what was under way; while the journal cannot be written it waits."""
        refused = self._not_again.get(deployment.id)
        if refused is not None:
            self._driver.spawn(self._driver.inject(deployment.id, life.StageFailed(refused)))
            return
        try:
            self._resume(deployment)
        except JournalError as error:
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))
            self._driver.spawn(self._resume_later(deployment))

    async def _resume_later(self, deployment: Deployment) -> None:
        await asyncio.sleep(JOURNAL_AGAIN_S)
        if self._journal.get(deployment.id) == deployment:
            self._resume_or_later(deployment)

    async def _bring_back(self, deployment: Deployment) -> None:
        with journal_may_fail():
            await self._revive(deployment)

    async def _revive(self, deployment: Deployment, *, resume: bool = True) -> None:
        """Bring one current deployment back on the rung it had, else on the next best one.

        `resume`: go on from its state too, as nobody does after a start.
        """
        stopped = self.why_stopped(deployment)
        if stopped is not None:
            await self._lost(deployment, stopped, resume=resume)
            return
        failure: Reason | None = None
        lost: Reason | None = None
        attempt = deployment
        for index in rungs_to_return_on(deployment):
            attempt = msgspec.structs.replace(attempt, rung_index=index)
            failure = await self._try(attempt)
            if failure is None:
                self._revived(deployment, attempt, lost, resume=resume)
                return
            if failure.code == OVERTAKEN:  # retired meanwhile
                return
            lost = lost or failure
            attempt = not_returned(attempt, failure)
        assert failure is not None  # noqa: S101 - a ladder is never empty
        await self._lost(deployment, failure, resume=resume)

    async def _try(self, attempt: Deployment) -> Reason | None:
        """Serve again on one rung; None, or what it failed on.

        A process that died is no judgement: who killed it may have meant another. What is good is
        not given up before it has died once for each of `PAUSES_S`.
        """
        failure: Reason | None = None
        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            try:
                await self._serve_again(attempt)
            except ChildError as error:
                failure = Reason(error.code, error.message, error.mend)
                if error.code != "DIED":
                    break
            except BundleError as error:
                return Reason(error.reason, error.message, error.mend)
            else:
                return None
        return failure

    async def _serve_again(self, deployment: Deployment) -> None:
        crew = await self._stages.revive(deployment)

        def commit(_replaced: Deployment | None) -> Deployment:
            current = self._journal.current(deployment.name)
            if current is None or current.id != deployment.id:
                named = f"{deployment.name} {deployment.version}"
                raise ChildError(OVERTAKEN, f"{named} is not to serve any more")
            return msgspec.structs.replace(deployment, state=current.state)

        try:
            await self._services.of(deployment.name).switch(crew, commit)
        except BaseException:
            await crew.end()
            raise

    def _revived(
        self, before: Deployment, after: Deployment, lost: Reason | None, *, resume: bool
    ) -> None:
        """Write down on which rung it serves again, and why no longer on the one before."""
        self._services.of(after.name).fault = None
        if after.rung_index != before.rung_index:
            step = RUNG_LOST if lost and lost_gpu(before.rung, lost.code) else "RungChanged"
            why = lost.message if lost else ""
            self._journal.record(before, step, after, dt.datetime.now(dt.UTC), why)
        if not resume:
            return
        if after.state is State.SWITCHING:
            self._driver.spawn(self._driver.inject(after.id, life.Switched()))
        elif after.state in (State.PROBATION, State.ROLLING_BACK, State.DRAINING):
            self._resume(after)

    async def _lost(self, deployment: Deployment, reason: Reason, *, resume: bool) -> None:
        """The current deployment cannot serve after a restart: go back, or say so and try again."""
        previous = self._journal.get(deployment.predecessor)
        if previous is not None and previous.digest not in self._store.digests():
            previous = None
        self._services.of(deployment.name).fault = reason
        if deployment.state is State.SWITCHING:
            await self._lost_in_switch(deployment, previous, reason)
            return
        barred = self._barred(previous)
        going_back = deployment.state is State.ROLLING_BACK
        may_wait = resume and isinstance(barred, TrustUnusable)
        if deployment.state is State.DRAINING or (going_back and not may_wait):
            if resume:
                self._resume(deployment)
        elif previous is not None and barred is None:
            self._driver.spawn(self._driver.inject(deployment.id, life.BudgetSpent(reason)))
        else:
            await self._nothing_left(deployment, _with(reason, barred))

    async def _lost_in_switch(
        self, deployment: Deployment, previous: Deployment | None, reason: Reason
    ) -> None:
        """It had just been made current: what served until then serves again, if anything did."""

        def forget() -> bool:
            self._journal.clear_current(deployment.name)
            return True

        if previous is not None:
            self._journal.make_current(previous, dt.datetime.now(dt.UTC))
            await self._revive(previous)
        else:
            await self._services.of(deployment.name).retire(forget)
        self._driver.spawn(self._driver.inject(deployment.id, life.StageFailed(reason)))

    async def _nothing_left(self, deployment: Deployment, reason: Reason) -> None:
        """Tell callers, and try again later: what stands in the way may be mended by then."""
        event(log, Event.TASK_FAILED, logging.ERROR, reason.message, **concerns(deployment))
        service = self._services.of(deployment.name)
        service.fault = reason
        await service.refuse(deployment, self._stages.manifest(deployment), reason.message)
        self._driver.spawn(self._revive_later(deployment))

    def _barred(self, previous: Deployment | None) -> BundleError | None:
        """Say why a predecessor may not serve again; None when it may, or there is none."""
        try:
            if previous is not None:
                self._stages.check_may_begin(previous)
        except BundleError as error:
            return error
        return None

    async def _revive_later(self, deployment: Deployment) -> None:
        self._again_now.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await self._again_now.wait()
        current = self._journal.current(deployment.name)
        if current is not None and current.id == deployment.id:
            await self._bring_back(current)


def _with(reason: Reason, barred: BundleError | None) -> Reason:
    """Add to a reason why the version before it may not come back either."""
    if barred is None:
        return reason
    message = f"{reason.message}; the version before it may not come back: {barred.message}"
    return Reason(reason.code, message, barred.mend)
