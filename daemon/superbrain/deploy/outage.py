"""Brief outages: a version stops, its successor gets its room, and it comes back if that fails.

Before a candidate loads, `make_room` says whether it fits beside what serves. Where it does not,
would fit in its place, and an outage is allowed (`domain.outage`), the version that serves ends,
while its requests wait in the gateway. Then one of these follows, and nothing else:

    switched     the candidate has proven itself and answers: what waited is answered by it
    went back    it failed, took too long or was given up: the old version, proven anew, answers

One outage at a time is on this host, and it belongs to one attempt on one rung. What an outage
needs (processors, the right to load) it does not wait for. A kill of the daemon needs nothing from
here: the journal still says that the old version is current, so the next start brings it back, and
`after_restart` says what became of the outage and of the candidate.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import ChildError
from superbrain.deploy.journal_file import JournalError
from superbrain.domain.deployment import UNFINISHED
from superbrain.domain.outage import (
    BEGAN,
    ENDED,
    OutageFacts,
    OutagePolicy,
    cut_short,
    told_how_to_allow,
    too_long,
    waiting_sentence,
)
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from superbrain.deploy.budget import MemoryBudget, NoRoom
    from superbrain.deploy.crew import Bringup
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.services import Services
    from superbrain.domain.deployment import Deployment, Reason
    from superbrain.domain.manifest import Manifest
    from superbrain.domain.outage import Outcome

log = logging.getLogger(__name__)

FACT = "outage"
GRACE_S = 2.0  # beyond the limit, for the stage that is under way to say so by itself


class Begun(msgspec.Struct, frozen=True):
    """What the journal knows of an outage while it lasts."""

    deployment_id: int
    at: dt.datetime


class _Outage:
    """One outage from the stop of the old version to the first answer of either."""

    def __init__(
        self, candidate: Deployment, service: ModelService, serving: Deployment, why: str
    ) -> None:
        self.candidate = candidate
        self.service = service
        self.serving = serving
        self.why = why
        self.began = dt.datetime.now(dt.UTC)
        self.began_s = time.monotonic()
        self.stopping: asyncio.Task[None] | None = None
        self.returning: asyncio.Task[None] | None = None
        self.watching: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self.began_s

    @property
    def tasks(self) -> tuple[asyncio.Task[None] | None, ...]:
        """All that is done for it."""
        return self.watching, self.stopping, self.returning

    @property
    def named(self) -> str:
        """For whom it is."""
        return f"{self.candidate.name} {self.candidate.version} on {self.candidate.rung}"


class Outages:
    """Makes room for candidates, and gives it back.

    Attributes:
        bring_back: brings a deployment back that served before, proven anew, as after a start.
        end_candidate: ends the processes of a candidate.
    """

    def __init__(
        self, journal: Journal, services: Services, budget: MemoryBudget, policy: OutagePolicy
    ) -> None:
        self._journal = journal
        self._services = services
        self._budget = budget
        self._policy = policy
        self._turn = asyncio.Lock()
        self._open: _Outage | None = None
        self._facts: dict[str, OutageFacts] = {}
        self._stopped = False
        self.bring_back: Callable[[Deployment], Awaitable[None]] = _nobody
        self.end_candidate: Callable[[int], Awaitable[None]] = _nobody

    # --- what is known ------------------------------------------------------------------------

    def facts(self, model: str) -> OutageFacts | None:
        """Tell of the newest outage of a model."""
        outage = self._open
        if outage is not None and outage.candidate.name == model:
            return self._told(outage, "under way")
        return self._facts.get(model)

    def is_for(self, deployment: Deployment) -> bool:
        """Whether room has been made for this deployment."""
        return self._open is not None and self._open.candidate.id == deployment.id

    def gives_way(self, manifest: Manifest) -> int:
        """Give the bytes of memory that would become free for a bundle if room were made for it."""
        if not self._policy.allows(asked=manifest.serving.brief_outage):
            return 0
        return self._budget.held_bytes(manifest.name)

    # --- making room --------------------------------------------------------------------------

    async def make_room(
        self,
        candidate: Deployment,
        bringup: Bringup,
        *,
        may_stop: bool = True,
        back: bool = False,
    ) -> Reason | None:
        """Let the version that serves stop, if a candidate fits only then and it is allowed.

        Args:
            candidate: the deployment that is to be loaded.
            bringup: its bundle and rung.
            may_stop: whether it is worth an outage at all.
            back: whether it served before: then it is enough that the bundle it replaces allows it.

        Returns:
            Why it may not be loaded; None when it may.
        """
        async with contextlib.AsyncExitStack() as turn:
            await self._turn.acquire()  # what others see as free now may be needed
            turn.callback(self._turn.release)
            found = await self._budget.refusal(bringup)
            if found is None:
                return None
            service = self._services.of(candidate.name)
            refused = self._not_allowed(found, service, bringup, back=back)
            if refused is not None or not may_stop:
                return refused or found.reason
            outage = self._begin(candidate, service, found.reason.message)
            turn.pop_all()  # the outage keeps it until it is over
        await asyncio.shield(self._stop_serving(outage))
        return await self._still_too_little(candidate, bringup)

    def _not_allowed(
        self, found: NoRoom, service: ModelService, bringup: Bringup, *, back: bool
    ) -> Reason | None:
        serving = service.current
        if serving is None or service.deployment is None or not found.fits_in_place:
            return found.reason
        asked = bringup.manifest.serving.brief_outage
        asked = asked or (back and serving.bringup.manifest.serving.brief_outage)
        if not self._policy.allows(asked=asked):
            return told_how_to_allow(self._policy, found.reason)
        return None

    def _begin(self, candidate: Deployment, service: ModelService, why: str) -> _Outage:
        """Write down that an outage begins; on a full disk none does."""
        serving = service.deployment
        assert serving is not None  # noqa: S101 - _not_allowed has looked
        outage = _Outage(candidate, service, serving, why)
        told = f"{serving.name} {serving.version} stops to make room: {why}"
        self._journal.set_fact(
            FACT, msgspec.json.encode(Begun(candidate.id, outage.began)).decode()
        )
        self._journal.note(candidate, BEGAN, outage.began, told)
        self._open = outage
        event(
            log,
            Event.OUTAGE_BEGAN,
            logging.WARNING,
            told,
            model=candidate.name,
            version=candidate.version,
            rung=candidate.rung,
            limit_s=self._policy.limit_s,
        )
        return outage

    def _stop_serving(self, outage: _Outage) -> asyncio.Task[None]:
        """End the version that serves, whatever becomes of whoever waits for that."""
        candidate, serving = outage.candidate, outage.serving
        waiting = waiting_sentence(
            f"{serving.name} {serving.version}", f"{candidate.name} {candidate.version}"
        )
        outage.watching = asyncio.create_task(self._end_overdue(outage))
        outage.stopping = asyncio.create_task(outage.service.make_room(waiting))
        return outage.stopping

    async def _still_too_little(self, candidate: Deployment, bringup: Bringup) -> Reason | None:
        """Look once more, now that the old version has gone; go back if that was not enough."""
        found = await self._budget.refusal(bringup)
        if found is None:
            return None
        await self.go_back(candidate, found.reason.message)
        return found.reason

    @contextlib.asynccontextmanager
    async def limited(self, candidate: Deployment) -> AsyncIterator[None]:
        """Let nothing that is done for a candidate take longer than an outage may.

        Raises:
            ChildError: it did.
        """
        outage = self._open
        if outage is None or outage.candidate.id != candidate.id:
            yield
            return
        limit_s = self._policy.limit_s
        try:
            async with asyncio.timeout(limit_s - outage.seconds) as timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            reason = too_long(outage.named)
            raise ChildError(reason.code, reason.message, mend=reason.mend) from None

    # --- the end ------------------------------------------------------------------------------

    def switched(self, candidate: Deployment) -> None:
        """Take note that a deployment answers; if room was made for it the outage is over."""
        outage = self._open
        if outage is not None and outage.candidate.id == candidate.id:
            self._close(outage, "switched", f"{outage.named} serves")

    async def go_back(self, candidate: Deployment, why: str) -> None:
        """If room was made for a deployment, end it and let the version before it serve again."""
        outage = self._open
        if outage is None or outage.candidate.id != candidate.id:
            return
        if outage.returning is None:
            outage.returning = asyncio.create_task(self._return(outage, why))
        await asyncio.shield(outage.returning)

    async def _return(self, outage: _Outage, why: str) -> None:
        try:
            await self._bring_back(outage)
        finally:
            if not self._stopped:
                service, name = outage.service, outage.candidate.name
                after = service.deployment if service.current is not None else None
                serves = f"{name} {after.version} serves again" if after else "nothing serves"
                self._close(outage, "went back", f"{serves}: {why}")

    async def _bring_back(self, outage: _Outage) -> None:
        if outage.stopping is not None:
            await outage.stopping
        await self.end_candidate(outage.candidate.id)
        current = self._journal.current(outage.candidate.name)
        if current is not None and outage.service.current is None:
            await self.bring_back(current)

    async def _end_overdue(self, outage: _Outage) -> None:
        """Go back though no stage does, such as while the journal cannot be written."""
        await asyncio.sleep(self._policy.limit_s + GRACE_S)
        if self._open is outage:
            reason = too_long(outage.named)
            await self.go_back(outage.candidate, reason.message)

    def _close(self, outage: _Outage, outcome: Outcome, what: str) -> None:
        if self._open is not outage:
            return
        self._open = None
        self._turn.release()
        if outage.watching is not None and outage.watching is not asyncio.current_task():
            outage.watching.cancel()
        facts = self._facts[outage.candidate.name] = self._told(outage, outcome)
        message = f"{what}; nobody answered for {facts.seconds:.1f} s"
        event(
            log,
            Event.OUTAGE_ENDED,
            logging.WARNING,
            message,
            model=outage.candidate.name,
            version=outage.candidate.version,
            outcome=outcome,
            seconds=facts.seconds,
        )
        outage.service.keep_incident("BriefOutage", message)
        self._note(outage.candidate.id, message)

    def _note(self, deployment_id: int, message: str) -> None:
        """Write down that an outage is over; what serves counts more than what is written."""
        candidate = self._journal.get(deployment_id)
        try:
            self._journal.set_fact(FACT, "")
            if candidate is not None:
                self._journal.note(candidate, ENDED, dt.datetime.now(dt.UTC), message)
        except JournalError as error:
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))

    def _told(self, outage: _Outage, outcome: Outcome) -> OutageFacts:
        return OutageFacts(
            began=outage.began,
            version=outage.candidate.version,
            rung=outage.candidate.rung,
            why=outage.why,
            limit_s=self._policy.limit_s,
            seconds=round(outage.seconds, 3),
            outcome=outcome,
        )

    # --- the daemon's end ---------------------------------------------------------------------

    async def stop(self) -> None:
        """Leave an outage as it is; the next start ends it."""
        self._stopped = True
        if self._open is not None:
            tasks = [task for task in self._open.tasks if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def after_restart(self) -> dict[int, Reason]:
        """End the outage in which the daemon ended; what was current has been brought back.

        Returns:
            The deployment that is not to be tried on its rung again, with the reason.
        """
        fact = self._journal.fact(FACT)
        if not fact:
            return {}
        begun = msgspec.json.decode(fact, type=Begun)
        candidate = self._journal.get(begun.deployment_id)
        if candidate is None:
            self._journal.set_fact(FACT, "")
            return {}
        current = self._journal.current(candidate.name)
        reason = cut_short(candidate)
        if current is not None and current.id == candidate.id:  # it had just been made current
            message = f"the daemon ended in the outage for {candidate.version}, which serves now"
            reason = msgspec.structs.replace(reason, message=message)
        seconds = round((dt.datetime.now(dt.UTC) - begun.at).total_seconds(), 3)
        self._facts[candidate.name] = OutageFacts(
            begun.at,
            candidate.version,
            candidate.rung,
            reason.message,
            self._policy.limit_s,
            seconds,
            "cut short",
        )
        message = f"{reason.message}; nobody answered for {seconds:.1f} s"
        event(log, Event.OUTAGE_ENDED, logging.WARNING, message, model=candidate.name)
        self._services.of(candidate.name).keep_incident("BriefOutage", message)
        self._note(candidate.id, message)
        return {candidate.id: reason} if candidate.state in UNFINISHED else {}


async def _nobody(_whom: object) -> None:
    """Nobody is there to do it."""
