"""The driver: feeds events to deployments, writes down each step, then has it performed.

Every deployment that is not at rest has one task, which performs a command, applies the event it
ended with and goes on with the commands that follow. What comes from outside (an operator, a spent
budget, a newer bundle) is injected: the task is stopped, the event applied, and a new task goes on
from there. A step is in the journal before it is performed, so `recovery` continues after a kill.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.failing_disk import disk_may_fail, journal_may_fail
from superbrain.deploy.journal_file import JournalError
from superbrain.deploy.put_back import PutBack
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.policy import retry_delay_s
from superbrain.domain.retention import KEPT_DEPLOYMENTS, remembered, retained
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, Literal

    from superbrain.bundle.store import Store
    from superbrain.deploy.inbox import Complete, Inbox
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.services import Services
    from superbrain.deploy.stages import Stages
    from superbrain.domain.health import Incident
    from superbrain.domain.manifest import Manifest

log = logging.getLogger(__name__)

JOURNAL_AGAIN_S = 2.0
_MAY_LEAVE_OTHERS = (life.Switched, life.PreviousReady, life.PreviousLost, life.Stable)
_NEEDS_PREDECESSOR = frozenset({State.SWITCHING, State.PROBATION, State.ROLLING_BACK})


class Driver:
    """Advances deployments. All methods belong to one event loop.

    `on_step` is called after every step of any deployment; `doubted` gives bundles that stay in the
    store though no deployment needs them.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        inbox: Inbox,
        services: Services,
        stages: Stages,
    ) -> None:
        self._journal = journal
        self._store = store
        self._inbox = inbox
        self._services = services
        self._stages = stages
        self.put_back = PutBack(store, inbox)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._chores: set[asyncio.Task[None]] = set()
        services.on_given_up = self._given_up
        services.on_incident = self._note
        self.on_step: Callable[[Deployment, life.Event], None] = lambda _after, _happened: None
        self.doubted: Callable[[], set[str]] = set
        self._trouble = ""

    # --- what arrives -------------------------------------------------------------------------

    def take(self, arrival: Complete) -> None:
        """Begin a deployment for a complete dropped file, unless its bundle is known already."""
        manifest, digest = arrival.verified.manifest, arrival.verified.digest
        known = self._journal.newest_with_digest(digest)
        if known is not None and known.state in life.UNFINISHED:
            return
        if known is not None and known.state in life.SERVING:
            if self.put_back.wanted(digest, self._services.of(known.name).fault):
                self.spawn(self.put_back.take(arrival))
                return
            log.info("inbox: %s is %s already", arrival.path.name, known.state)
            self._inbox.taken(arrival.path, arrival.content)
            return
        if known is not None and known.reason is not None and self._found_bad(known):
            self._inbox.refuse(arrival.path, known.reason)
            return
        if known is not None and known.state is State.FAILED and self._there_since(arrival, known):
            if self._was_taken(known):
                self._inbox.taken(arrival.path, arrival.content)
            elif known.reason is not None:
                why = f"its bundle could not be taken: {known.reason.message}"
                self._inbox.wait(arrival.path.name, why, known.reason.mend)
            return
        if self._newer_under_way(manifest) or not self._inbox.holds(str(arrival.path)):
            return  # a later look sees what became of the newer one; a file may go after the look
        self._begin(
            Deployment(
                id=0,
                name=manifest.name,
                version=manifest.version,
                sequence=manifest.sequence,
                digest=digest,
                ladder=tuple(manifest.ladder),
                select=manifest.select,
                attempt=1,
                source=str(arrival.path),
            )
        )

    def _found_bad(self, known: Deployment) -> bool:
        """Whether a bundle was rejected for what is signed in it, which no other copy can mend.

        A damaged copy, a key not trusted yet, a clock or too little memory are judged again.
        """
        last = self._journal.history(deployment_id=known.id, limit=1)
        return known.state is State.REJECTED and last[0].state_from != State.VERIFYING

    def _was_taken(self, failed: Deployment) -> bool:
        """Whether it failed with its bytes in the store: its file is not needed any more."""
        last = self._journal.history(deployment_id=failed.id, limit=1)
        return last[0].state_from != State.VERIFYING

    def _newer_under_way(self, manifest: Manifest) -> bool:
        return any(
            other.name == manifest.name and other.sequence > manifest.sequence
            for other in self._journal.in_states(life.UNFINISHED)
        )

    def _there_since(self, arrival: Complete, failed: Deployment) -> bool:
        """Whether it is the very file that failed: that is tried again by `retry_later` alone."""
        last = self._journal.history(deployment_id=failed.id, limit=1)
        return self._inbox.arrived_at(arrival.path) <= last[0].at

    def _begin(self, deployment: Deployment) -> Deployment:
        created = self._journal.create(deployment, _now())
        self.spawn(self._abandon_older(created))
        self.run(created, life.ON_ENTRY[State.RECEIVED])
        return created

    async def abandon(self, name: str, reason: Reason) -> None:
        """End everything of a model that is under way and does not take traffic yet."""
        for candidate in self._journal.in_states(life.UNFINISHED):
            if candidate.name == name:
                await self.inject(candidate.id, life.Abandoned(reason))

    async def _abandon_older(self, newer: Deployment) -> None:
        reason = Reason("SUPERSEDED", f"{newer.name} {newer.version} arrived before it was live")
        for older in self._journal.in_states(life.UNFINISHED):
            mine = older.name == newer.name and older.id < newer.id
            if mine and older.sequence <= newer.sequence and life.accepts(older, life.Abandoned):
                await self.inject(older.id, life.Abandoned(reason))

    # --- advancing ----------------------------------------------------------------------------

    def run(self, deployment: Deployment, commands: tuple[life.Command, ...]) -> None:
        """Have commands performed, and all that follows from them, in a task of its own."""
        task = asyncio.create_task(self._live(deployment, commands))
        self._tasks[deployment.id] = task
        task.add_done_callback(_log_failure)
        task.add_done_callback(lambda ended: self._forget(deployment.id, ended))

    def _forget(self, deployment_id: int, ended: asyncio.Task[None]) -> None:
        if self._tasks.get(deployment_id) is ended:
            del self._tasks[deployment_id]

    async def _live(self, deployment: Deployment, commands: tuple[life.Command, ...]) -> None:
        while commands:
            happened: life.Event | None = None
            for command in commands:
                happened = await self._perform(deployment, command)
            if happened is None:
                break
            deployment, commands = await self._apply_patiently(deployment.id, happened)

    async def _apply_patiently(
        self, deployment_id: int, happened: life.Event
    ) -> tuple[Deployment, tuple[life.Command, ...]]:
        """Apply an event; while the journal cannot be written, nothing goes on and nothing ends."""
        while True:
            try:
                return self.apply(deployment_id, happened)
            except JournalError as error:
                self._say_once(error)
            await asyncio.sleep(JOURNAL_AGAIN_S)

    def _say_once(self, error: JournalError) -> None:
        """Log what the journal fails on, once for as long as it is the same."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            event(log, Event.TASK_FAILED, logging.ERROR, self._trouble)

    async def _perform(self, deployment: Deployment, command: life.Command) -> life.Event | None:
        """Have a command performed; what nobody foresaw fails the stage, and is logged whole."""
        try:
            while True:
                try:
                    return await self._stages.perform(deployment, command)
                except JournalError as error:  # a full disk is no stage's fault: again
                    self._say_once(error)
                await asyncio.sleep(JOURNAL_AGAIN_S)
        except Exception as error:
            if not life.accepts(deployment, life.StageFailed):
                raise
            event(
                log,
                Event.TASK_FAILED,
                logging.ERROR,
                str(error),
                exc_info=error,
                deployment=deployment.id,
            )
            found = f"{type(command).__name__} ended with {type(error).__name__}: {error}"
            mend = "This is a fault of superbrain or of this host; the log has the details"
            return life.StageFailed(Reason("UNEXPECTED", found, mend))

    def apply(
        self, deployment_id: int, happened: life.Event
    ) -> tuple[Deployment, tuple[life.Command, ...]]:
        """Write one step down and give what must be performed now."""
        before = self._journal.get(deployment_id)
        assert before is not None  # noqa: S101 - nothing deletes deployments
        after, commands = life.advance(before, happened)
        reason = happened.reason if isinstance(happened, life.Bad) else None
        detail = life.detail(happened)
        self._journal.record(before, type(happened).__name__, after, _now(), detail)
        self._trouble = ""
        event(
            log,
            Event.DEPLOYMENT_ADVANCED,
            logging.WARNING if reason else logging.INFO,
            detail,
            deployment=after.id,
            model=after.name,
            version=after.version,
            happened=type(happened).__name__,
            state=after.state,
            rung=after.rung,
        )
        try:
            self._after(after, happened)
        except JournalError as error:  # the step is written down and counts
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))
        return after, commands

    def _after(self, deployment: Deployment, happened: life.Event) -> None:
        """Look after what one deployment's step means for others."""
        service = self._services.of(deployment.name)
        service.deployment = self._journal.current(deployment.name)
        self.on_step(deployment, happened)
        if isinstance(happened, (life.Switched, life.PreviousReady)):
            service.fault = None
        if isinstance(happened, life.PreviousLost):
            self.spawn(service.tell_if_nothing_is_left())
        if isinstance(happened, _MAY_LEAVE_OTHERS):
            self.spawn(self.supersede(deployment.name))
        if deployment.state in (State.FAILED, State.BROKEN):
            self.retry_later(deployment)
        alone = deployment.state is State.LIVE and not deployment.predecessor
        if deployment.state in life.ENDED or deployment.state is State.RETIRED or alone:
            self.spawn(self.collect())

    async def supersede(self, name: str) -> None:
        """Let go of what is neither current nor needed by the current one as its predecessor."""
        current = self._journal.current(name)
        keep = {current.id} if current else set()
        for older in self._journal.in_states((State.PROBATION,)):
            if older.name == name and older.id not in keep:
                await self.inject(older.id, life.Stable())
        if current is not None and current.state in _NEEDS_PREDECESSOR:
            keep.add(current.predecessor)
        for older in self._journal.in_states((State.LIVE,)):
            if older.name == name and older.id not in keep:
                await self.inject(older.id, life.Superseded())

    async def roll_back(self, current: Deployment, why: life.Bad) -> None:
        """Go back to the predecessor; one that is being drained is let finish first."""
        await self.settled(current.predecessor)
        await self.inject(current.id, why)

    async def inject(self, deployment_id: int, happened: life.Event) -> None:
        """Stop what the deployment is doing, apply an event from outside, go on from there.

        An event that its state has no row for changes nothing: what is under way goes on.
        """
        if not self._accepts(deployment_id, happened):
            return
        task = self._tasks.pop(deployment_id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not self._accepts(deployment_id, happened):  # somebody else was quicker
                return
        self.run(*await self._apply_patiently(deployment_id, happened))

    def begin(self, deployment: Deployment, happened: life.Event) -> None:
        """Apply an event to a deployment for which nothing is under way, and go on from there.

        Raises:
            JournalError: it cannot be written down now; nothing has begun.
        """
        self.run(*self.apply(deployment.id, happened))

    def is_under_way(self, deployment: Deployment) -> bool:
        """Whether something is being done for a deployment."""
        return deployment.id in self._tasks

    def _accepts(self, deployment_id: int, happened: life.Event) -> bool:
        deployment = self._journal.get(deployment_id)
        return deployment is not None and life.accepts(deployment, type(happened))

    # --- faults -------------------------------------------------------------------------------

    def _given_up(self, name: str, why: life.Bad) -> bool:
        """Go back from what does too badly; False, and a fault, when nothing was before it."""
        service = self._services.of(name)
        deployment = service.deployment
        if deployment is None:
            return False
        if deployment.state is State.ROLLING_BACK:
            return True
        if not life.accepts(deployment, type(why)):
            return False
        if self._journal.get(deployment.predecessor) is None:
            mend = f"No previous version is retained: drop a repaired bundle of {name}"
            service.fault = Reason(why.reason.code, f"{name}: {why.reason.message}", mend)
            return False
        self.spawn(self.roll_back(deployment, why))
        return True

    def _note(self, name: str, incident: Incident) -> None:
        """Write an incident into the history of what serves; a full disk only loses the note."""
        current = self._journal.current(name)
        if current is None:
            return
        try:
            self._journal.note(current, incident.kind, incident.at, incident.message)
        except JournalError as error:
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))

    def retry_later(self, deployment: Deployment) -> None:
        """Try a failed deployment again after a while, a few times, unless its model is retired."""
        delay_s = retry_delay_s(deployment.attempt)
        if delay_s is not None:
            self.spawn(self._retry_after(deployment, delay_s))

    async def _retry_after(self, failed: Deployment, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        newest = self._journal.of_model(failed.name, 1)
        if newest and newest[0].id == failed.id and not self._journal.retired_since(failed):
            self.again(failed)

    def holds(self, deployment: Deployment) -> bool:
        """Whether the file that it came by still lies in the inbox."""
        return self._inbox.holds(deployment.source)

    def again(
        self, ended: Deployment, origin: Literal["inbox", "retry"] | None = None
    ) -> Deployment:
        """Begin another attempt with the bundle of a deployment that has ended.

        Only with `origin` "retry", an operator's order, may it go below the sequence floor.
        """
        return self._begin(
            msgspec.structs.replace(
                ended,
                id=0,
                state=State.RECEIVED,
                rung_index=0,
                attempt=ended.attempt + 1,
                origin=origin or ended.origin,
                predecessor=0,
                reason=None,
                outcomes=(),
            )
        )

    # --- the end ------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop all tasks, drain and end all processes; the journal keeps everything as it is."""
        tasks = [*self._tasks.values(), *self._chores]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stages.end_candidates()
        await asyncio.gather(*(service.stop() for service in self._services.all()))

    async def settled(self, deployment_id: int) -> None:
        """Wait until nothing is under way for a deployment."""
        task = self._tasks.get(deployment_id)
        if task is not None:
            await asyncio.wait([task])

    async def collect(self) -> None:
        """Remove bundles that nothing refers to any more, and the past beyond what is kept.

        What a disk does not let go of stays until the next time, and keeps nothing else.
        """
        with disk_may_fail():
            await self._collect_bundles()
        with journal_may_fail():
            for name in self._journal.models():
                newest = self._journal.of_model(name, KEPT_DEPLOYMENTS)
                if len(newest) == KEPT_DEPLOYMENTS:
                    self._journal.prune(name, remembered(newest, self._journal.relevant(name)))

    async def _collect_bundles(self) -> None:
        await asyncio.to_thread(self._store.sweep_leftovers)
        there = await asyncio.to_thread(self._store.digests)
        kept = self._retained() | self.doubted()
        for digest in there:
            # Asked again before each one goes: bundles arrive meanwhile.
            if digest not in kept and digest not in self._retained():
                with disk_may_fail():
                    await asyncio.to_thread(self._store.remove, digest)
                    event(log, Event.STORE_COLLECTED, digest=digest)

    def _retained(self) -> set[str]:
        current = self._journal.models()
        return retained({name: self._journal.relevant(name) for name in current}, current)

    def spawn(self, chore: Coroutine[Any, Any, None]) -> None:
        """Have something done beside everything else; a failure of it is logged."""
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        task.add_done_callback(_log_failure)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        event(log, Event.TASK_FAILED, logging.ERROR, str(error), exc_info=error)
