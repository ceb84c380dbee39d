"""Bringing a deployment up: engines, then loaded processes, then proven ones.

What fails here may fail for an engine that the bundle brings along. Wherever that cannot be ruled
out it is a `CarriedUnfit`, and whoever asked sets the bundle's engines aside and has the rung's
engines built on this host.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING

import msgspec

from superbrain.deploy.child import ChildError
from superbrain.deploy.crew import Bringup, Crew
from superbrain.deploy.journal_file import JournalError
from superbrain.deploy.shelf import CarriedUnfit
from superbrain.domain.carried import blames_engine, carried_for
from superbrain.domain.deployment import Deployment, Reason
from superbrain.domain.returning import with_carried_aside
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from superbrain.bundle.store import Store
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.workshop import Workshop
    from superbrain.domain.proof import Proof

    Show = Callable[[str, float | None], None]
    Admit = Callable[[Bringup], AbstractAsyncContextManager[None]]

log = logging.getLogger(__name__)


class BringUp:
    """Brings up crews of bundles in the store."""

    def __init__(self, journal: Journal, store: Store, workshop: Workshop) -> None:
        self._journal = journal
        self._store = store
        self._workshop = workshop

    async def equip(self, deployment: Deployment, show: Show) -> Bringup:
        """Get the engines that its rung needs, built if need be.

        Raises:
            CarriedUnfit: the bundle brings engines for this rung, but none for this host.
            ChildError, BundleError: this host cannot run the rung, or the builder or cache failed.
        """
        bringup = self._bringup(deployment)
        engines = await self._workshop.engines(bringup, show)
        return msgspec.structs.replace(bringup, engines=engines)

    async def load(self, bringup: Bringup) -> Crew:
        """Load workers; built engines that they refuse leave the cache, to be built anew.

        Raises:
            CarriedUnfit: it may be for an engine that the bundle brings that they cannot.
            ChildError: they cannot.
        """
        try:
            return await Crew.load(bringup)
        except ChildError as error:
            self._workshop.doubt(bringup.rung)
            if error.code == "EngineRefused":
                await self._workshop.refused(bringup)
            raise _blamed(error, bringup) from error

    async def prove(
        self, deployment: Deployment, crew: Crew, *, timed: bool = False
    ) -> list[Proof]:
        """Prove every worker, and journal the figures.

        Raises:
            CarriedUnfit, ChildError: as for `load`, where a worker cannot even come to an end.
        """
        try:
            proofs = await crew.prove(timed=timed)
        except ChildError as error:
            raise _blamed(error, crew.bringup) from error
        for worker, proof in proofs:
            self._note_proof(deployment, worker, proof)
        return [proof for _, proof in proofs]

    async def again(self, deployment: Deployment, show: Show, admit: Admit) -> Crew:
        """Bring proven processes up for what was good before, once `admit` lets them in.

        Engines of the bundle that are no good any more, perhaps since the driver has changed, are
        set aside for good. A process that merely died is no judgement on them.

        Raises:
            ChildError, BundleError: it cannot come back on this rung.
        """
        try:
            return await self._proven(deployment, show, admit)
        except CarriedUnfit as error:
            if error.code == "DIED":
                raise
            reason = Reason(error.code, error.message, error.mend)
        event(log, Event.ENGINE_SET_ASIDE, logging.WARNING, reason.message, rung=deployment.rung)
        return await self._proven(self._set_aside(deployment, reason), show, admit)

    async def _proven(self, deployment: Deployment, show: Show, admit: Admit) -> Crew:
        bringup = await self.equip(deployment, show)
        async with admit(bringup):
            crew = await self.load(bringup)
            try:
                failure = first_failure(await self.prove(deployment, crew))
                if failure:
                    raise _blamed(ChildError("GOLDEN_MISMATCH", failure), bringup)
            except BaseException:
                await crew.end()
                raise
        return crew

    def _set_aside(self, deployment: Deployment, reason: Reason) -> Deployment:
        """Write down that it is not brought back with its bundle's own engines again."""
        try:
            if (before := self._journal.get(deployment.id)) is not None:
                after = with_carried_aside(before, deployment.rung, reason)
                now = dt.datetime.now(dt.UTC)
                self._journal.record(before, "CarriedFailed", after, now, reason.message)
        except JournalError as error:  # it is found out again at the next start
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))
        return with_carried_aside(deployment, deployment.rung, reason)

    def _bringup(self, deployment: Deployment) -> Bringup:
        manifest = self._store.manifest(deployment.digest)
        may = deployment.may_use_carried
        return Bringup(
            deployment_id=deployment.id,
            bundle_path=self._store.path(deployment.digest),
            digest=deployment.digest,
            manifest=manifest,
            rung=deployment.rung,
            workplace=self._workshop.workplace,
            carried=carried_for(manifest, deployment.rung) if may else (),
        )

    def _note_proof(self, deployment: Deployment, worker: int, proof: Proof) -> None:
        try:
            self._journal.add_proof(deployment.id, worker, proof, dt.datetime.now(dt.UTC))
        except JournalError as error:  # it is proven all the same
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))
        event(
            log,
            Event.PROOF_PASSED if proof.passed else Event.PROOF_FAILED,
            deployment=deployment.id,
            rung=proof.rung,
            message=proof.first_failure,
            median_ms=proof.timing.median_ms if proof.timing else None,
        )


def first_failure(proofs: Sequence[Proof]) -> str:
    """Give the first failure of all workers; empty when every one of them is proven."""
    return next((proof.first_failure for proof in proofs if proof.first_failure), "")


def _blamed(error: ChildError, bringup: Bringup) -> ChildError:
    """Give the error for which an engine that the bundle brings may be to blame its own name."""
    if not bringup.carried or error.bundle_at_fault or not blames_engine(error.code):
        return error
    return CarriedUnfit(error.code, error.message, mend=error.mend)
