"""The guard: what already serves, or is on its way, held against the trust that counts now.

Expiry and retired keys concern only what is new. But a version may turn out to be bad: its digest
or too many of its signers are revoked, or it is below its model's security floor. Then

1. if it is only on its way, it is abandoned;
2. if it serves and the version before it is retained and may serve, that one takes over;
3. if there is none and the revocation says `stop`, the model is retired: no answers;
4. else it goes on serving, proven as it was, and health is critical until somebody acts.

While nobody can tell what is revoked (trust_keeper.py), no version before may take over.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from superbrain.deploy.failing_disk import journal_may_fail
from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.errors import BundleError
from superbrain.domain.health import Problem
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from superbrain.bundle.store import Store
    from superbrain.deploy.driver import Driver
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.trust_keeper import TrustKeeper

log = logging.getLogger(__name__)


# Verified before and not yet serving; what comes before and after judges for itself.
_ON_ITS_WAY = (State.BUILDING, State.PROVING)


class TrustGuard:
    """Judges deployments; all methods belong to the daemon's loop."""

    def __init__(self, journal: Journal, store: Store, driver: Driver, keeper: TrustKeeper) -> None:
        self._journal = journal
        self._store = store
        self._driver = driver
        self._keeper = keeper
        self._tried: set[tuple[int, int]] = set()

    def trust_changed(self) -> None:
        """Try again what was tried under another trust."""
        self._tried.clear()

    def stop_unfit(self) -> None:
        """Begin to retire what is to be stopped and has no way back; before anything serves.

        What cannot be written down now does not serve either, see `why_stopped`; `enforce` retires
        it later.
        """
        for current in self._all_current():
            reason = self.why_stopped(current)
            if reason is not None and life.accepts(current, life.RetireAsked):
                self._say(current, f"{reason.message}; it is stopped")
                with journal_may_fail():
                    self._driver.begin(current, life.RetireAsked(reason))

    def why_stopped(self, current: Deployment) -> Reason | None:
        """Say why a current deployment must not be brought back; None when it may be."""
        return self._objection(current) if self._to_stop(current) else None

    async def enforce(self) -> None:
        """Abandon, replace or retire what may not serve."""
        for candidate in self._journal.in_states(_ON_ITS_WAY):
            reason = self._objection(candidate)
            if reason is not None:
                await self._driver.inject(candidate.id, life.Abandoned(reason))
        for current in self._all_current():
            reason = self._objection(current)
            if reason is not None:
                await self._replace(current, reason)

    def problems(self) -> list[Problem]:
        """Say of every model what may not serve and does, or was stopped for it."""
        found = [self._problem(name, at) for name, at in self._journal.models().items()]
        return [problem for problem in found if problem is not None]

    # --- inside -------------------------------------------------------------------------------

    def _all_current(self) -> list[Deployment]:
        found = [self._journal.current(name) for name, at in self._journal.models().items() if at]
        return [deployment for deployment in found if deployment is not None]

    def _objection(self, deployment: Deployment) -> Reason | None:
        """Why a deployment may not serve by what is known now; None when it may."""
        signers = self._journal.signers(deployment.digest)
        try:
            self._keeper.known().check_may_serve(
                deployment.name,
                deployment.version,
                deployment.sequence,
                deployment.digest,
                signers,
            )
        except BundleError as error:
            return Reason(error.reason, error.message, error.mend)
        return None

    def _may_begin(self, deployment: Deployment) -> bool:
        return self._keeper.fault is None and self._objection(deployment) is None

    def _way_back(self, current: Deployment) -> Deployment | None:
        previous = self._journal.get(current.predecessor)
        if previous is None or previous.digest not in self._store.digests():
            return None
        return previous if self._may_begin(previous) else None

    def _stopped(self, deployment: Deployment) -> bool:
        return deployment.digest in self._keeper.known().stopped_bundles

    def _to_stop(self, current: Deployment) -> bool:
        return self._stopped(current) and self._way_back(current) is None

    async def _replace(self, current: Deployment, reason: Reason) -> None:
        previous = self._way_back(current)
        attempt = (current.id, previous.id if previous else 0)
        if attempt in self._tried:
            return
        if previous is not None and life.accepts(current, life.RollbackAsked):
            self._tried.add(attempt)
            self._say(current, f"{reason.message}; {previous.version} takes over")
            await self._driver.roll_back(current, life.RollbackAsked(reason))
            await self._driver.settled(current.id)
        if self._stopped(current):
            after = self._journal.current(current.name)
            if after is not None and after.id == current.id:
                await self._retire(after)
        elif previous is None:
            self._tried.add(attempt)
            self._say(current, f"{reason.message}; nothing can take over, it goes on serving")

    async def _retire(self, current: Deployment) -> None:
        if not life.accepts(current, life.RetireAsked):
            return
        reason = self._objection(current)
        assert reason is not None  # noqa: S101 - only what is revoked is stopped
        self._say(current, f"{reason.message}; it is stopped")
        await self._driver.inject(current.id, life.RetireAsked(reason))
        await self._driver.settled(current.id)
        await self._driver.supersede(current.name)

    def _say(self, current: Deployment, message: str) -> None:
        event(
            log,
            Event.REVOKED_LIVE,
            logging.ERROR,
            message,
            deployment=current.id,
            model=current.name,
            version=current.version,
            digest=current.digest,
        )

    def _problem(self, name: str, at: int) -> Problem | None:
        serving = self._journal.get(at)
        if serving is None:
            return self._stopped_problem(name)
        reason = self._objection(serving)
        if reason is None:
            return None
        message = f"{name} {serving.version} serves and should not: {reason.message}"
        mend = f"Drop a release that may serve; superbrain retire {name} ends the answers"
        return Problem("critical", f"model {name}", message, mend)

    def _stopped_problem(self, name: str) -> Problem | None:
        for ended in self._journal.of_model(name):
            reason = ended.reason
            if ended.state is State.RETIRED and reason is not None and self._stopped(ended):
                message = f"{name} {ended.version} was stopped: {reason.message}"
                mend = "Drop a release that may serve"
                return Problem("critical", f"model {name}", message, mend)
        return None
