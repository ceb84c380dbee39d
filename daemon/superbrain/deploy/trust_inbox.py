"""Trust updates that were dropped into the inbox: offered to the keeper, taken, put aside or left.

An accepted one disappears from the inbox like a bundle; one that is bad is put aside with the
reason. One that only comes too early stays, because a later file may make it good.

However many lie there, the bytes of one at a time are held: what an update says of its place in the
chain is kept while its file stays as it is, and the keeper has it read again when its turn comes.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING

from superbrain.bundle.trust_chain import SignedUpdate, read_update
from superbrain.deploy.trust_keeper import Offered
from superbrain.domain.audit import Action
from superbrain.domain.deployment import Reason
from superbrain.domain.errors import BundleError
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superbrain.deploy.inbox import DroppedUpdate, Inbox
    from superbrain.deploy.trust_keeper import TrustKeeper, Verdict
    from superbrain.host.audit_log import AuditLog

log = logging.getLogger(__name__)


class TrustInbox:
    """Looks for trust updates."""

    def __init__(self, inbox: Inbox, keeper: TrustKeeper, audit: AuditLog) -> None:
        self._inbox = inbox
        self._keeper = keeper
        self._audit = audit
        self._known: dict[DroppedUpdate, Offered] = {}

    async def look(self) -> bool:
        """Take what is there; whether another trust counts now.

        Raises:
            InboxError: the folder cannot be read.
        """
        self._known = await asyncio.to_thread(self._find)
        offered = list(self._known.values())
        verdicts = self._keeper.offer(offered) if offered else []
        await asyncio.to_thread(self._settle, verdicts)
        return any(verdict.outcome == "accepted" for verdict in verdicts)

    def _find(self) -> dict[DroppedUpdate, Offered]:
        """Read what was not read before, one after the other."""
        found = {}
        for dropped in self._inbox.updates():
            offered = self._known.get(dropped) or self._read(dropped)
            if offered is not None:
                found[dropped] = offered
        return found

    def _read(self, dropped: DroppedUpdate) -> Offered | None:
        """Read an update; what is none is put aside once it has been left alone for a while."""
        data = self._inbox.read_update(dropped)
        if data is None:
            return None
        try:
            return Offered.of(read_update(data), functools.partial(self._read_again, dropped))
        except BundleError as error:
            if self._inbox.settled(dropped.path, dropped.content):
                self._refuse(dropped, Reason(error.reason, error.message, error.mend))
            else:
                self._inbox.wait(dropped.path.name, "the copy is not complete yet")
        return None

    def _read_again(self, dropped: DroppedUpdate) -> SignedUpdate | None:
        data = self._inbox.read_update(dropped)
        try:
            return read_update(data) if data is not None else None
        except BundleError:  # it was another one before: the next look judges what it has become
            return None

    def _settle(self, verdicts: Iterable[Verdict]) -> None:
        files = {id(offered): dropped for dropped, offered in self._known.items()}
        for verdict in verdicts:
            self._settle_one(files[id(verdict.offered)], verdict)

    def _settle_one(self, dropped: DroppedUpdate, verdict: Verdict) -> None:
        if verdict.outcome == "refused":
            self._refuse(dropped, Reason(verdict.reason, verdict.message, verdict.mend))
        elif verdict.outcome == "waiting":
            self._inbox.wait(dropped.path.name, verdict.message, verdict.mend)
        else:
            if verdict.outcome == "known":
                log.info("inbox: %s: %s", dropped.path.name, verdict.message)
            self._inbox.taken(dropped.path, dropped.content)

    def _refuse(self, dropped: DroppedUpdate, reason: Reason) -> None:
        name = dropped.path.name
        event(log, Event.TRUST_UPDATE_REFUSED, logging.WARNING, reason.message, file=name)
        self._audit.write(Action.TRUST_REFUSED, name, "refused", f"{reason.code}: {reason.message}")
        self._inbox.refuse(dropped.path, reason)
