"""An operator's orders: go back, stop, try again; carried out, or refused with a sentence."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from superbrain.domain import deployment as life
from superbrain.domain.deployment import Deployment, Reason, State
from superbrain.domain.errors import BundleError
from superbrain.host.events import Event
from superbrain.host.logs import event
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.bundle.store import Store
    from superbrain.deploy.driver import Driver
    from superbrain.deploy.journal import Journal
    from superbrain.domain.trust import Trust

log = logging.getLogger(__name__)


class OrderRefused(SuperbrainError):
    """An operator's order cannot be carried out; nothing has changed."""

    def __init__(self, code: str, message: str, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.code = code


class Orders:
    """Carries out orders."""

    def __init__(
        self, journal: Journal, store: Store, driver: Driver, trust: Callable[[], Trust]
    ) -> None:
        self._journal = journal
        self._store = store
        self._driver = driver
        self._trust = trust

    async def roll_back(self, name: str) -> str:
        """Bring the previous good version back; a sentence about what is under way.

        Raises:
            OrderRefused: there is nothing to go back from or to, or it may not serve any more.
        """
        current = self._current(name)
        previous = self._journal.get(current.predecessor)
        if previous is None or previous.digest not in self._store.digests():
            msg = f"{name} {current.version} has no earlier good version on this host"
            raise OrderRefused("NO_PREVIOUS", msg, "Drop the bundle you want instead")
        self._check_may_return(previous)
        if not life.accepts(current, life.RollbackAsked):
            msg = f"{name} {current.version} is {current.state}"
            raise OrderRefused("BUSY", msg, "Wait until that is over: superbrain status")
        asked = Reason("ROLLBACK_ASKED", "an operator asked for the previous version")
        await self._driver.roll_back(current, life.RollbackAsked(asked))
        await self._driver.settled(current.id)
        after = self._journal.get(current.id)
        if after is not None and after.state is not State.ROLLED_BACK:
            serves = "does not serve any more" if after.state is State.BROKEN else "still serves"
            why = after.reason.message if after.reason else f"it is {after.state}"
            raise OrderRefused("ROLLBACK_FAILED", f"{name} {current.version} {serves}: {why}")
        return f"{name} {previous.version} serves again instead of {current.version}"

    async def retire(self, name: str) -> str:
        """Stop serving a model; a sentence about what was done.

        Raises:
            OrderRefused: it is not serving, or something is under way.
        """
        current = self._current(name)
        if not life.accepts(current, life.RetireAsked):
            msg = f"{name} {current.version} is {current.state}"
            raise OrderRefused("BUSY", msg, "Wait until that is over: superbrain status")
        asked = Reason("RETIRE_ASKED", "an operator asked to stop it")
        await self._driver.abandon(name, asked)
        await self._driver.inject(current.id, life.RetireAsked(asked))
        await self._driver.settled(current.id)
        serving = self._journal.current(name)
        if serving is not None:
            msg = f"{name} {serving.version} serves since a moment ago"
            raise OrderRefused("BUSY", msg, "Give the order again if it is still what you want")
        await self._driver.supersede(name)
        about: dict[str, Any] = {
            "deployment": current.id,
            "model": name,
            "version": current.version,
        }
        event(log, Event.MODEL_RETIRED, **about)
        again = f"superbrain retry {name} --version {current.version}"
        return f"{name} {current.version} is retired; `{again}` brings it back"

    def retry(self, name: str, version: str = "") -> str:
        """Try an ended deployment again from the bundle in the store, or from its dropped file.

        Raises:
            OrderRefused: there is none, or its bundle is neither here nor there.
        """
        candidates = [
            deployment
            for deployment in self._journal.of_model(name)
            if version in ("", deployment.version)
        ]
        if not candidates:
            msg = f"no deployment of {name} {version}".rstrip() + " is known here"
            raise OrderRefused("NOT_FOUND", msg, "superbrain history lists them")
        newest = candidates[0]
        if newest.state not in life.ENDED and newest.state is not State.RETIRED:
            msg = f"{name} {newest.version} is {newest.state}, so there is nothing to try again"
            raise OrderRefused("BUSY", msg)
        if newest.digest in self._store.digests():
            anew = msgspec.structs.replace(newest, attempt=0, source="")
            again = self._driver.again(anew, "retry")
        elif newest.state is State.FAILED and self._driver.holds(newest):
            again = self._driver.again(msgspec.structs.replace(newest, attempt=0))
        else:
            raise _not_kept(newest)
        return f"{name} {again.version} is tried again as deployment {again.id}"

    def _check_may_return(self, previous: Deployment) -> None:
        signers = self._journal.signers(previous.digest)
        try:
            self._trust().check_may_begin(
                previous.name, previous.version, previous.sequence, previous.digest, signers
            )
        except BundleError as error:
            msg = f"{previous.name} {previous.version} may not serve again: {error.message}"
            raise OrderRefused(error.reason, msg, error.mend) from error

    def _current(self, name: str) -> Deployment:
        current = self._journal.current(name)
        if current is None:
            serving = [model for model, at in self._journal.models().items() if at]
            msg = f"no model named {name!r} serves here; serving: {', '.join(serving) or 'none'}"
            raise OrderRefused("NOT_FOUND", msg, "superbrain status lists the models")
        return current


def _not_kept(ended: Deployment) -> OrderRefused:
    """The store has no bundle to try: it was let go, or refused before it was taken."""
    which, why = f"{ended.name} {ended.version}", ended.reason
    if ended.state is not State.REJECTED or why is None:
        msg = f"the bundle of {which} is not in the store any more"
        return OrderRefused("NOT_RETAINED", msg, "Drop it into the inbox again")
    msg = f"{which} was refused, and its bundle is not in the store: {why.message}"
    another = "Another file is needed: this one is refused again as long as that is so"
    return OrderRefused("NOT_RETAINED", msg, f"{why.mend}. {another}" if why.mend else another)
