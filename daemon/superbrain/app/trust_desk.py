"""What an operator asks about trust and about the audit trail, and has done through the daemon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superbrain.bundle.trust_chain import read_update
from superbrain.deploy.orders import OrderRefused
from superbrain.deploy.trust_keeper import Offered
from superbrain.domain import operations as op
from superbrain.domain.audit import Action
from superbrain.domain.errors import BundleError
from superbrain.domain.trust_facts import KeyFacts, RevocationFacts, TrustFacts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from superbrain.deploy.host_clock import HostClock
    from superbrain.deploy.journal import Journal
    from superbrain.deploy.trust_keeper import TrustKeeper, Verdict
    from superbrain.domain.trust import PublicKey, Trust
    from superbrain.host.audit_log import AuditLog


class TrustDesk:
    """Answers about trust. `changed` is awaited when another trust counts."""

    def __init__(
        self,
        keeper: TrustKeeper,
        clock: HostClock,
        journal: Journal,
        audit: AuditLog,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._keeper = keeper
        self._clock = clock
        self._journal = journal
        self._audit = audit
        self._changed = changed

    def facts(self) -> TrustFacts:
        """Everything about trust on this host."""
        keeper, time = self._keeper, self._clock.time()
        known = keeper.known().at(time)
        fault = keeper.fault
        return TrustFacts(
            folder=str(keeper.folder),
            sequence=keeper.standing.sequence,
            threshold=known.threshold,
            keys=[_key(key, known) for key in known.keys],
            revoked=self._revoked(known),
            security_floors=dict(sorted(known.security_floors.items())),
            updates=list(keeper.updates),
            clock=time.clock,
            time_floor=time.floor,
            fault=fault.message if fault else "",
            mend=fault.mend if fault else "",
        )

    def _revoked(self, known: Trust) -> list[RevocationFacts]:
        here = self._keeper.files.revoked
        return [
            RevocationFacts(
                digest,
                "this host" if digest in here else f"update {self._keeper.standing.sequence}",
                digest in known.stopped_bundles,
                self._bundle(digest),
            )
            for digest in sorted(known.revoked_keys | known.revoked_bundles)
        ]

    def _bundle(self, digest: str) -> str:
        found = self._journal.newest_with_digest(digest)
        return f"{found.name} {found.version}" if found else ""

    async def import_updates(self, updates: list[str]) -> str:
        """Take trust updates; a sentence about what counts now.

        Raises:
            OrderRefused: none of them counts, and why.
        """
        try:
            offered = [Offered.of(read_update(text.encode())) for text in updates]
        except BundleError as error:
            raise OrderRefused(error.reason, error.message, error.mend) from error
        if not offered:
            raise OrderRefused("INVALID_ARGUMENT", "expected one trust update or more, found none")
        verdicts = self._keeper.offer(offered)
        accepted = [verdict for verdict in verdicts if verdict.outcome == "accepted"]
        bad = [verdict for verdict in verdicts if verdict.outcome in ("refused", "waiting")]
        if accepted:
            await self._changed()
        for verdict in bad:
            subject = f"trust update {verdict.offered.sequence}"
            detail = f"{verdict.reason}: {verdict.message}"
            self._audit.write(Action.TRUST_REFUSED, subject, verdict.outcome, detail)
        if bad:
            raise _not_imported(accepted, bad[0])
        return (accepted or verdicts)[-1].message

    def forget_time(self) -> str:
        """Forget the latest time that this host has seen."""
        self._clock.forget()
        return f"dates are judged by the clock again: {self._clock.time().clock:%Y-%m-%d %H:%M} UTC"

    async def audit(self, limit: int) -> op.AuditReply:
        """Read the newest entries.

        Raises:
            OrderRefused: the files cannot be read.
        """
        try:
            return op.AuditReply(await asyncio.to_thread(self._audit.newest, limit))
        except OSError as error:
            raise _unreadable(error) from error

    async def verify_audit(self) -> op.AuditVerdict:
        """Check the whole trail.

        Raises:
            OrderRefused: the files cannot be read.
        """
        try:
            chain = await asyncio.to_thread(self._audit.verify)
        except OSError as error:
            raise _unreadable(error) from error
        return op.AuditVerdict(
            chain.first, chain.last.sequence, chain.entries, chain.last.sha256, chain.faults
        )


def _key(key: PublicKey, known: Trust) -> KeyFacts:
    revoked, resting = key.key_id in known.revoked_keys, key.key_id in known.resting_keys
    return KeyFacts(
        key.key_id,
        key.who,
        key.source,
        "revoked" if revoked else "not valid now" if resting else "valid",
        key.not_before,
        key.not_after,
    )


def _not_imported(accepted: list[Verdict], bad: Verdict) -> OrderRefused:
    counted = f"{accepted[-1].message}, but " if accepted else ""
    return OrderRefused(bad.reason or "UPDATE_EARLY", f"{counted}{bad.message}", bad.mend)


def _unreadable(error: OSError) -> OrderRefused:
    return OrderRefused("INTERNAL", f"the audit trail cannot be read: {error}")
