"""Trust updates that were dropped into the inbox: offered to the keeper, taken, put aside or left.

An accepted one disappears from the inbox like a bundle; one that is bad is put aside with the
reason. One that only comes too early stays, because a later file may make it good.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from superbrain.bundle.trust_chain import SignedUpdate, read_update
from superbrain.domain.audit import Action
from superbrain.domain.deployment import Reason
from superbrain.domain.errors import BundleError
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
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

    async def look(self) -> bool:
        """Take what is there; whether another trust counts now.

        Raises:
            InboxError: the folder cannot be read.
        """
        dropped = await asyncio.to_thread(self._inbox.updates)
        read = [(one, signed) for one in dropped if (signed := self._read(one)) is not None]
        files = {id(signed): one for one, signed in read}
        verdicts = self._keeper.offer([signed for _, signed in read]) if read else []
        for verdict in verdicts:
            self._settle(files[id(verdict.signed)], verdict)
        return any(verdict.outcome == "accepted" for verdict in verdicts)

    def _read(self, dropped: DroppedUpdate) -> SignedUpdate | None:
        """Read an update; what is none is put aside once it has been left alone for a while."""
        try:
            return read_update(dropped.data)
        except BundleError as error:
            if self._inbox.settled(dropped.path):
                self._refuse(dropped, Reason(error.reason, error.message, error.mend))
            else:
                self._inbox.wait(dropped.path.name, "the copy is not complete yet")
        return None

    def _settle(self, dropped: DroppedUpdate, verdict: Verdict) -> None:
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
