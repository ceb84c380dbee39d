"""The stages of a deployment's life, performed: each takes a deployment and gives what happened.

A stage never decides what comes next; it returns an event, and the table in `domain.deployment`
decides. Foreign failures become events with a reason here, so that a bad bundle, a full disk or a
dead process can never end the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.bring_up import BringUp, first_failure
from superbrain.deploy.child import ChildError
from superbrain.deploy.intake import Progress
from superbrain.deploy.journal_file import JournalError
from superbrain.deploy.shelf import CarriedUnfit
from superbrain.deploy.step_times import StepTimes, concerns
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.errors import BundleError
from superbrain.domain.outage import too_long
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from superbrain.bundle.store import Store
    from superbrain.deploy.crew import Bringup, Crew
    from superbrain.deploy.intake import Intake
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.outage import Outages
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.workshop import Workshop
    from superbrain.domain.manifest import Manifest

    Performer = Callable[[Deployment], Awaitable[life.Event | None]]

log = logging.getLogger(__name__)


class Stages:
    """Performs commands.

    Args:
        intake: takes bundles into the store.
        service_of: gives the service of a model, making it on the first call.
        workshop: has engines built where a rung needs them, and says where workers live.
        outages: makes room for what does not fit beside what serves, where that is allowed.
        parallel: how many crews may load or prove at the same time.

    Attributes:
        rung_unusable: says why nothing may begin on a rung; None when it may.
        outages: as given.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        intake: Intake,
        service_of: Callable[[str], ModelService],
        *,
        workshop: Workshop,
        outages: Outages,
        probation_s: float,
        parallel: int,
    ) -> None:
        self._journal = journal
        self._store = store
        self._intake = intake
        self._service_of = service_of
        self._trust = intake.trust
        self._bring_up = BringUp(journal, store, workshop)
        self._probation_s = probation_s
        self._slots = asyncio.Semaphore(parallel)
        self._revivals = asyncio.Semaphore(parallel)  # what is good never waits for what is new
        self._crews: dict[int, Crew] = {}
        self.progress = intake.progress
        self.steps = StepTimes()
        self.rung_unusable: Callable[[str], Reason | None] = lambda _rung: None
        self.outages = outages
        outages.end_candidate = self._end_candidate
        intake.gives_way = outages.gives_way
        self._performers: dict[type[life.Command], Performer] = {
            life.AwaitFile: intake.await_file,
            life.TakeIn: intake.take_in,
            life.Build: self._build,
            life.Prove: self._prove,
            life.Switch: self._switch,
            life.Watch: self._watch,
            life.RollBack: self._roll_back,
            life.Drain: self._drain,
            life.Discard: self._discard,
        }

    async def perform(self, deployment: Deployment, command: life.Command) -> life.Event | None:
        """Carry out one command; the event it ended with, None for commands that have none."""
        return await self.steps.timed(deployment, command, self._performers[type(command)])

    # --- into proven processes ----------------------------------------------------------------

    async def _build(self, deployment: Deployment) -> life.Event:
        happened = await self._built(deployment)
        if isinstance(happened, life.Bad):
            await self.outages.go_back(deployment, happened.reason.message)
        return happened

    async def _built(self, deployment: Deployment) -> life.Event:
        unusable = self.rung_unusable(deployment.rung)
        if unusable is not None:
            return life.StageFailed(unusable)
        try:
            with self.steps.step(deployment, "build"):
                bringup = await self._bring_up.equip(deployment, self._shower(deployment))
            self.progress[deployment.id] = Progress(f"loading on {deployment.rung}")
            async with self._slots:
                refused = await self._make_room(deployment, bringup)
                if refused is not None:
                    return life.StageFailed(refused)
                with self.steps.step(deployment, "load"):
                    async with self.outages.limited(deployment):
                        self._crews[deployment.id] = await self._bring_up.load(bringup)
        except CarriedUnfit as error:
            return life.CarriedFailed(Reason(error.code, error.message, error.mend))
        except ChildError as error:
            reason = Reason(error.code, error.message, error.mend)
            return life.Refused(reason) if error.bundle_at_fault else life.StageFailed(reason)
        except BundleError as error:
            return life.StageFailed(Reason(error.reason, error.message, error.mend))
        finally:
            self.progress.pop(deployment.id, None)
        return life.Built(carried=bool(bringup.carried))

    async def _make_room(self, deployment: Deployment, bringup: Bringup) -> Reason | None:
        """Say why it may not load; None when it may, if need be in the place of what serves.

        Where rungs are compared, one that is known to prove and fits is worth more than a faster
        one that costs an outage.
        """
        others = [one for one in deployment.outcomes if one.rung != deployment.rung]
        proven = any(one.reason is None for one in others)
        return await self.outages.make_room(deployment, bringup, may_stop=not proven)

    async def _prove(self, deployment: Deployment) -> life.Event:
        happened = await self._proven(deployment)
        if isinstance(happened, life.Bad):
            await self.outages.go_back(deployment, happened.reason.message)
        return happened

    async def _proven(self, deployment: Deployment) -> life.Event:
        self.progress[deployment.id] = Progress(f"proving on {deployment.rung}")
        in_outage = self.outages.is_for(deployment)
        timed = deployment.is_compared and not in_outage
        try:
            async with _nothing() if in_outage else self._slots, self.outages.limited(deployment):
                crew = self._crews.get(deployment.id)
                if crew is None:
                    return life.StageFailed(_overdue(deployment))
                proofs = await self._bring_up.prove(deployment, crew, timed=timed)
        except CarriedUnfit as error:
            return life.CarriedFailed(Reason(error.code, error.message, error.mend))
        except ChildError as error:
            return life.StageFailed(Reason(error.code, error.message, error.mend))
        finally:
            self.progress.pop(deployment.id, None)
        if failure := first_failure(proofs):
            mend = f"See `superbrain report {deployment.name} --version {deployment.version}`"
            reason = Reason("GOLDEN_MISMATCH", failure, mend)
            return life.CarriedFailed(reason) if crew.bringup.carried else life.Mismatched(reason)
        measured = next((proof.timing for proof in proofs if proof.timing), None)
        return life.Timed(measured.median_ms) if measured else life.Matched()

    async def _watch(self, _deployment: Deployment) -> life.Event:
        await asyncio.sleep(self._probation_s)
        return life.Stable()

    # --- traffic ------------------------------------------------------------------------------

    async def _switch(self, deployment: Deployment) -> life.Event:
        service = self._service_of(deployment.name)
        crew = self._crews.pop(deployment.id, None)
        if crew is None:
            return life.StageFailed(_overdue(deployment))

        def commit(replaced: Deployment | None) -> Deployment:
            self.check_may_begin(deployment)
            if (
                replaced
                and deployment.origin == "inbox"
                and deployment.sequence < replaced.sequence
            ):
                msg = f"{replaced.name} {replaced.version}, which is newer, went live first"
                raise ChildError("SUPERSEDED", msg)
            predecessor = replaced.id if replaced else 0
            committed = msgspec.structs.replace(deployment, predecessor=predecessor)
            self._journal.make_current(committed, dt.datetime.now(dt.UTC))
            return committed

        try:
            await service.switch(crew, commit)
        except (ChildError, BundleError) as error:
            self._crews[deployment.id] = crew
            await self.outages.go_back(deployment, error.message)
            return life.StageFailed(Reason(error.code, error.message, error.mend))
        except JournalError:  # this is tried again, unless it takes too long
            self._crews[deployment.id] = crew
            raise
        self.outages.switched(deployment)
        event(log, Event.MODEL_SWITCHED, **concerns(deployment))
        return life.Switched()

    async def _roll_back(self, deployment: Deployment) -> life.Event:
        service = self._service_of(deployment.name)
        previous = self._journal.get(deployment.predecessor)
        crew: Crew | None = None

        def restore(replaced: Deployment | None) -> Deployment:
            if replaced is not None and replaced.id != deployment.id:
                msg = f"{replaced.name} {replaced.version} went live meanwhile"
                raise ChildError("OVERTAKEN", msg)
            return self._restore(deployment.predecessor)

        try:
            if previous is None:
                raise ChildError("NO_PREVIOUS", "no previous good version is retained")
            self.check_may_begin(previous)
            crew = await self._warm_or_new(service, previous)
            await service.switch(crew, restore)
        except (ChildError, BundleError) as error:
            await _let_go(service, crew)
            if previous is not None:
                await self.outages.go_back(previous, error.message)
            code = error.code if isinstance(error, ChildError) else error.reason
            reason = Reason(code, f"the previous version cannot come back: {error.message}")
            if service.current is not None:
                return life.PreviousLost(reason)
            await service.refuse(
                deployment, self.manifest(deployment), f"it is broken, {reason.message}"
            )
            return life.StageFailed(reason)
        except BaseException:
            await _let_go(service, crew)
            raise
        assert previous is not None  # noqa: S101 - NO_PREVIOUS otherwise
        self.outages.switched(previous)
        event(log, Event.ROLLED_BACK, **concerns(previous))
        return life.PreviousReady()

    async def _warm_or_new(self, service: ModelService, previous: Deployment) -> Crew:
        warm = service.warm
        if warm is not None and warm.whole and warm.bringup.deployment_id == previous.id:
            return warm
        return await self.revive(previous, make_room=True)

    async def revive(self, deployment: Deployment, *, make_room: bool = False) -> Crew:
        """Bring processes up for a deployment that was good before, proven again.

        Args:
            deployment: which was good before, with the rung to take.
            make_room: what serves may stop for it, if both do not fit and that is allowed.

        Raises:
            ChildError, BundleError: they could not, or its bundle in the store is damaged.
        """
        await asyncio.to_thread(self._store.rehash, deployment.digest)
        unusable = self.rung_unusable(deployment.rung)
        if unusable is not None:
            raise ChildError(unusable.code, unusable.message, mend=unusable.mend)
        try:
            return await self._bring_up.again(
                deployment,
                self._shower(deployment),
                partial(self._let_return, deployment, make_room),
            )
        finally:
            self.progress.pop(deployment.id, None)

    @contextlib.asynccontextmanager
    async def _let_return(
        self,
        deployment: Deployment,
        make_room: bool,  # noqa: FBT001 - bound beforehand
        bringup: Bringup,
    ) -> AsyncIterator[None]:
        """Let what was good before load and prove itself when it is its turn."""
        if make_room:  # it is a lower bound: what was good before is tried all the same
            await self.outages.make_room(deployment, bringup, back=True)
        async with self._revivals, self.outages.limited(deployment):
            yield

    def _restore(self, deployment_id: int) -> Deployment:
        now = dt.datetime.now(dt.UTC)
        previous = self._journal.get(deployment_id)
        assert previous is not None  # noqa: S101 - nothing deletes deployments
        if previous.state is State.RETIRED:
            restored, _ = life.advance(previous, life.Restored())
            self._journal.record(previous, "Restored", restored, now)
            previous = restored
        self._journal.make_current(previous, now)
        return previous

    def check_may_begin(self, deployment: Deployment) -> None:
        """Refuse what does not serve now and must not begin to, by the trust that counts now.

        Raises:
            BundleError: it is revoked or too old, or nobody can tell.
        """
        signers = self._journal.signers(deployment.digest)
        self._trust().check_may_begin(
            deployment.name, deployment.version, deployment.sequence, deployment.digest, signers
        )

    # --- the end ------------------------------------------------------------------------------

    async def _drain(self, deployment: Deployment) -> life.Event:
        service = self._service_of(deployment.name)

        def forget() -> bool:
            current = self._journal.current(deployment.name)
            if current is None or current.id != deployment.id:
                return False
            self._journal.clear_current(deployment.name)
            return True

        await service.retire(forget)
        await service.end_warm(deployment.id)
        return life.Drained()

    async def _discard(self, deployment: Deployment) -> None:
        await self._end_candidate(deployment.id)
        why = deployment.reason.message if deployment.reason else "it was given up"
        await self.outages.go_back(deployment, why)
        await self._service_of(deployment.name).end_warm(deployment.id)
        if deployment.state is State.REJECTED and deployment.source and deployment.reason:
            self._intake.explain(deployment.source, deployment.reason)

    def manifest(self, deployment: Deployment) -> Manifest | None:
        """Read a deployment's manifest from the store; None when the store has lost it."""
        try:
            return self._store.manifest(deployment.digest)
        except BundleError:
            return None

    async def _end_candidate(self, deployment_id: int) -> None:
        crew = self._crews.pop(deployment_id, None)
        if crew is not None:
            await crew.end()

    async def end_candidates(self) -> None:
        """End the processes of every deployment that does not serve yet."""
        await self.outages.stop()
        crews, self._crews = list(self._crews.values()), {}
        await asyncio.gather(*(crew.end() for crew in crews))

    def _shower(self, deployment: Deployment) -> Callable[[str, float | None], None]:
        """Give what is told how far the engines of a deployment are."""

        def show(detail: str, percent: float | None) -> None:
            self.progress[deployment.id] = Progress(detail, percent)

        return show


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    """Nothing to wait for."""
    yield


def _overdue(deployment: Deployment) -> Reason:
    """Say of a candidate without processes that what served before it has come back."""
    return too_long(f"{deployment.name} {deployment.version} on {deployment.rung}")


async def _let_go(service: ModelService, crew: Crew | None) -> None:
    """End a crew that was brought up in vain."""
    if crew is not None and crew is not service.current and crew is not service.warm:
        await crew.end()
