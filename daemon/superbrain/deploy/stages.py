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
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from superbrain.bundle.archive import open_bundle
from superbrain.deploy.bring_up import BringUp, first_failure
from superbrain.deploy.child import ChildError
from superbrain.deploy.inbox import Content, Inbox
from superbrain.deploy.shelf import CarriedUnfit
from superbrain.deploy.step_times import StepTimes, concerns
from superbrain.deploy.targets import check_targets
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.errors import BundleError, Incomplete, StoreError, TrustUnusable
from superbrain.domain.trust import check_policy
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import BinaryIO

    from superbrain.bundle.store import Store
    from superbrain.deploy.crew import Bringup, Crew
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.service import ModelService
    from superbrain.deploy.trust_keeper import TrustKeeper
    from superbrain.deploy.workshop import Workshop
    from superbrain.domain.manifest import Manifest

    Performer = Callable[[Deployment], Awaitable[life.Event | None]]

log = logging.getLogger(__name__)


class Progress(msgspec.Struct, frozen=True):
    """What a stage is doing right now; `percent` is None where nobody can tell."""

    detail: str
    percent: float | None = None


class Stages:
    """Performs commands.

    Args:
        service_of: gives the service of a model, making it on the first call.
        keeper: knows the trust that counts now, and the time by which dates are judged.
        workshop: has engines built where a rung needs them, and says where workers live.
        parallel: how many crews may load or prove at the same time.

    Attributes:
        rung_unusable: says why nothing may begin on a rung; None when it may.
        does_not_fit: says why a candidate has no room beside what serves; None when it has.
    """

    def __init__(
        self,
        journal: Journal,
        store: Store,
        inbox: Inbox,
        service_of: Callable[[str], ModelService],
        keeper: TrustKeeper,
        *,
        workshop: Workshop,
        probation_s: float,
        parallel: int,
    ) -> None:
        self._journal = journal
        self._store = store
        self._inbox = inbox
        self._service_of = service_of
        self._trust = keeper.trust
        self._clock = keeper.clock
        self._bring_up = BringUp(journal, store, workshop)
        self._probation_s = probation_s
        self._slots = asyncio.Semaphore(parallel)
        self._revivals = asyncio.Semaphore(parallel)  # what is good never waits for what is new
        self._crews: dict[int, Crew] = {}
        self.progress: dict[int, Progress] = {}
        self.steps = StepTimes()
        self.rung_unusable: Callable[[str], Reason | None] = lambda _rung: None
        self.does_not_fit: Callable[[Bringup], Awaitable[Reason | None]] = _fits
        self._performers: dict[type[life.Command], Performer] = {
            life.AwaitFile: self._await_file,
            life.TakeIn: self._take_in,
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

    # --- into the store -----------------------------------------------------------------------

    async def _await_file(self, deployment: Deployment) -> life.Event:
        if self._inbox.holds(deployment.source) or deployment.digest in self._store.digests():
            return life.Settled()
        return life.Abandoned(_gone(deployment))

    async def _take_in(self, deployment: Deployment) -> life.Event:
        path = Path(deployment.source)
        try:
            if not self._inbox.holds(deployment.source):
                return await self._take_from_store(deployment)
            with self._inbox.open(path) as file:
                return await self._receive(deployment, path, file)
        except FileNotFoundError:
            return life.Abandoned(_gone(deployment))
        except (StoreError, TrustUnusable) as error:  # this host's fault, not the bundle's
            return life.StageFailed(Reason(error.reason, error.message, error.mend))
        except Incomplete:  # it is being written again; the inbox waits until it is whole
            return life.Abandoned(_gone(deployment))
        except BundleError as error:
            return await self._refuse(deployment, path, error)
        except OSError as error:
            return life.StageFailed(Reason("READ_FAILED", f"{path.name}: {error}"))
        finally:
            self.progress.pop(deployment.id, None)

    async def _receive(self, deployment: Deployment, path: Path, file: BinaryIO) -> life.Event:
        def show(done: int, total: int) -> None:
            percent = 100.0 * done / max(total, 1)
            self.progress[deployment.id] = Progress("copying into the store", percent)

        content = Content.of(os.fstat(file.fileno()))
        verified = await asyncio.to_thread(open_bundle, file, self._trust())
        if verified.digest != deployment.digest:
            return life.Abandoned(_gone(deployment))
        self._check_policy(deployment, verified.manifest)
        check_targets(verified.manifest)
        await asyncio.to_thread(self._store.receive, file, verified, show)
        self._journal.accept(deployment, list(verified.signers), dt.datetime.now(dt.UTC))
        self._clock.believe(verified.manifest.created)
        self._inbox.taken(path, content)
        event(
            log,
            Event.BUNDLE_TAKEN,
            file=path.name,
            digest=deployment.digest,
            **concerns(deployment),
        )
        return life.Trusted()

    async def _take_from_store(self, deployment: Deployment) -> life.Event:
        """Take a bundle that is in the store already: an operator's retry, or after a kill.

        Signatures are checked again, so a key or bundle revoked meanwhile counts. Only an operator
        may go below the sequence floor; below the security floor nobody may.
        """
        if deployment.digest not in self._store.digests():
            return life.Abandoned(_gone(deployment))
        self._store.verify(deployment.digest, self._trust())
        manifest = await asyncio.to_thread(self._store.rehash, deployment.digest)
        self._check_security_floor(deployment)
        if deployment.origin == "inbox":
            self._check_policy(deployment, manifest)
        check_targets(manifest)
        return life.Trusted()

    def _check_policy(self, deployment: Deployment, manifest: Manifest) -> None:
        self._check_security_floor(deployment)
        floor = self._journal.floor(deployment.name)
        time = self._clock.time()
        for note in check_policy(manifest, deployment.digest, floor.sequence, floor.digest, time):
            log.warning("%s %s: %s", deployment.name, deployment.version, note)

    def _check_security_floor(self, wanted: Deployment) -> None:
        self._trust().check_security_floor(wanted.name, wanted.version, wanted.sequence)

    async def _refuse(self, deployment: Deployment, path: Path, error: BundleError) -> life.Event:
        """Refuse for good, unless the file is still being written: then look again."""
        if self._inbox.holds(deployment.source) and not self._inbox.settled(path):
            await asyncio.sleep(1.0)
            return await self._take_in(deployment)
        reason = Reason(error.reason, error.message, error.mend)
        if self._inbox.holds(deployment.source):
            self._inbox.refuse(path, reason)
        return life.Refused(reason)

    # --- into proven processes ----------------------------------------------------------------

    async def _build(self, deployment: Deployment) -> life.Event:
        unusable = self.rung_unusable(deployment.rung)
        if unusable is not None:
            return life.StageFailed(unusable)
        try:
            with self.steps.step(deployment, "build"):
                bringup = await self._bring_up.equip(deployment, self._shower(deployment))
            self.progress[deployment.id] = Progress(f"loading on {deployment.rung}")
            async with self._slots:
                refused = await self.does_not_fit(bringup)
                if refused is not None:
                    return life.StageFailed(refused)
                with self.steps.step(deployment, "load"):
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

    async def _prove(self, deployment: Deployment) -> life.Event:
        self.progress[deployment.id] = Progress(f"proving on {deployment.rung}")
        crew = self._crews[deployment.id]
        try:
            async with self._slots:
                proofs = await self._bring_up.prove(deployment, crew, timed=deployment.is_compared)
        except CarriedUnfit as error:
            return life.CarriedFailed(Reason(error.code, error.message, error.mend))
        except ChildError as error:
            return life.StageFailed(Reason(error.code, error.message, error.mend))
        finally:
            self.progress.pop(deployment.id, None)
        if failure := first_failure(proofs):
            mend = f"See `superbrain report {deployment.name} --version {deployment.version}`"
            reason = Reason("GOLDEN_MISMATCH", failure, mend)
            if crew.bringup.carried:
                return life.CarriedFailed(reason)
            return life.Mismatched(reason)
        timed = next((proof.timing for proof in proofs if proof.timing), None)
        return life.Timed(timed.median_ms) if timed else life.Matched()

    async def _watch(self, _deployment: Deployment) -> life.Event:
        await asyncio.sleep(self._probation_s)
        return life.Stable()

    # --- traffic ------------------------------------------------------------------------------

    async def _switch(self, deployment: Deployment) -> life.Event:
        service = self._service_of(deployment.name)
        crew = self._crews[deployment.id]

        def commit(replaced: Deployment | None) -> Deployment:
            self._trust().check_not_revoked(deployment.digest)
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
            return life.StageFailed(Reason(error.code, error.message, error.mend))
        del self._crews[deployment.id]
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
            self._check_may_return(previous)
            crew = await self._warm_or_new(service, previous)
            await service.switch(crew, restore)
        except (ChildError, BundleError) as error:
            await _let_go(service, crew)
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
        event(log, Event.ROLLED_BACK, **concerns(previous))
        return life.PreviousReady()

    def _check_may_return(self, previous: Deployment) -> None:
        signers = self._journal.signers(previous.digest)
        self._trust().check_may_serve(
            previous.name, previous.version, previous.sequence, previous.digest, signers
        )

    async def _warm_or_new(self, service: ModelService, previous: Deployment) -> Crew:
        warm = service.warm
        if warm is not None and warm.whole and warm.bringup.deployment_id == previous.id:
            return warm
        return await self.revive(previous)

    async def revive(self, deployment: Deployment) -> Crew:
        """Bring processes up for a deployment that was good before, proven again.

        Raises:
            ChildError, BundleError: they could not, or its bundle in the store is damaged.
        """
        await asyncio.to_thread(self._store.rehash, deployment.digest)
        unusable = self.rung_unusable(deployment.rung)
        if unusable is not None:
            raise ChildError(unusable.code, unusable.message, mend=unusable.mend)
        try:
            return await self._bring_up.again(deployment, self._shower(deployment), self._revivals)
        finally:
            self.progress.pop(deployment.id, None)

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
        crew = self._crews.pop(deployment.id, None)
        if crew is not None:
            await crew.end()
        await self._service_of(deployment.name).end_warm(deployment.id)
        if deployment.state is State.REJECTED and deployment.source and deployment.reason:
            with contextlib.suppress(OSError):
                self._inbox.explain(Path(deployment.source).name, deployment.reason)

    def manifest(self, deployment: Deployment) -> Manifest | None:
        """Read a deployment's manifest from the store; None when the store has lost it."""
        try:
            return self._store.manifest(deployment.digest)
        except BundleError:
            return None

    async def end_candidates(self) -> None:
        """End the processes of every deployment that does not serve yet."""
        crews, self._crews = list(self._crews.values()), {}
        await asyncio.gather(*(crew.end() for crew in crews))

    def _shower(self, deployment: Deployment) -> Callable[[str, float | None], None]:
        """Give what is told how far the engines of a deployment are."""

        def show(detail: str, percent: float | None) -> None:
            self.progress[deployment.id] = Progress(detail, percent)

        return show


async def _fits(_bringup: Bringup) -> Reason | None:
    """Nobody keeps a budget."""
    return None


async def _let_go(service: ModelService, crew: Crew | None) -> None:
    """End a crew that was brought up in vain."""
    if crew is not None and crew is not service.current and crew is not service.warm:
        await crew.end()


def _gone(deployment: Deployment) -> Reason:
    name = Path(deployment.source).name
    message = f"{name} went away or became another bundle before it was copied"
    return Reason("FILE_GONE", message, "Drop it again")
