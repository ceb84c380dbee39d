"""The keeper of trust: the operator's folder, the chain of signed updates after it, and the time.

The folder is the root of trust and is only read. Updates are offered to the keeper; those that
follow are written into the chain and count at once. The journal knows how far the chain once was,
so an update that vanished from the disk is noticed, and until it is back nothing new is accepted:
an older trust may believe in a key that was stolen since, and not know what was revoked. What
serves goes on serving meanwhile; nothing else begins to, not even what served before.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from superbrain.bundle.trust_chain import Followed, SignedUpdate, TrustChain, follow
from superbrain.bundle.trust_folder import TrustFiles, read_trust_files
from superbrain.deploy.journal_file import JournalError
from superbrain.domain.audit import Action
from superbrain.domain.errors import BundleError, StoreError, TrustUnusable, UpdateRefused
from superbrain.domain.health import Problem
from superbrain.domain.trust import Trust
from superbrain.domain.trust_facts import UpdateFacts
from superbrain.domain.trust_update import Standing, check_position, in_line
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.deploy.host_clock import HostClock
    from superbrain.deploy.journal import Journal
    from superbrain.host.audit_log import AuditLog

log = logging.getLogger(__name__)

MAX_FORGED = 16  # how many forged updates of one number are found out in one go
_SEEN_FACT = "trust_folder"


class Offered(msgspec.Struct, frozen=True):
    """What an update says of its own place in the chain; `read` gives all of it, or None.

    Nobody vouches for it yet, and `read` may give another one: it is verified when it is read.
    """

    sequence: int
    digest: str
    expires: dt.datetime | None
    read: Callable[[], SignedUpdate | None]

    @classmethod
    def of(
        cls, signed: SignedUpdate, read: Callable[[], SignedUpdate | None] | None = None
    ) -> Offered:
        """Offer an update that is held, or one that `read` reads again."""
        update = signed.update
        return cls(update.sequence, signed.digest, update.expires, read or (lambda: signed))

    def expired_at(self, now: dt.datetime) -> bool:
        """Tell whether it may not be imported any more as the newest there is."""
        return self.expires is not None and self.expires <= now


class Verdict(msgspec.Struct, frozen=True):
    """What became of an offered update; `waiting` ones may be offered again."""

    offered: Offered
    outcome: Literal["accepted", "known", "refused", "waiting"]
    message: str
    reason: str = ""
    mend: str = ""


class _Seen(msgspec.Struct, frozen=True):
    """What the folder said when it was last read."""

    anchor: str = ""
    revoked: list[str] = []
    stopped: list[str] = []


class TrustKeeper:
    """Knows whom this host believes. Use from one thread.

    Args:
        folder: the operator's trust folder; it is only read.
        chains: where the chains of updates lie.
    """

    def __init__(
        self, folder: Path, chains: Path, journal: Journal, clock: HostClock, audit: AuditLog
    ) -> None:
        self.folder = folder
        self._unreadable: TrustUnusable | None = None
        self._broken: TrustUnusable | None = None
        self.updates: list[UpdateFacts] = []
        self.files = TrustFiles(Trust())
        self.standing = Standing(Trust())
        self._chains = chains
        self._chain = TrustChain(chains, Trust())
        self._journal = journal
        self.clock = clock
        self._audit = audit

    @property
    def fault(self) -> TrustUnusable | None:
        """Why nothing new is accepted: the folder cannot be believed, or the chain is not whole."""
        return self._unreadable or self._broken

    # --- what counts --------------------------------------------------------------------------

    def trust(self) -> Trust:
        """Give the trust by which bundles are judged now; while there is a fault it has no keys."""
        if self.fault is not None:
            return msgspec.structs.replace(self.known(), keys=(), fault=self.fault)
        return self.known().at(self.clock.time())

    def known(self) -> Trust:
        """Give what is known about keys and revocations, fault or not."""
        return self.files.applied_to(self.standing.trust)

    def problems(self) -> list[Problem]:
        """Say what stands in the way of new bundles."""
        try:
            if self.fault is not None:
                raise self.fault
            self.trust().usable_keys()
        except BundleError as error:
            return [Problem("warning", "trust", error.message, error.mend)]
        return []

    # --- reading ------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the folder and verify the whole chain again; `fault` says what is wrong."""
        try:
            self.files = read_trust_files(self.folder)
        except TrustUnusable as error:
            self._unreadable = error
            event(log, Event.TRUST_LOADED, logging.WARNING, error.message, keys=0)
            return
        self._unreadable = None
        self._chain = TrustChain(self._chains, self.files.anchor)
        self._walk()
        self._note_folder()
        trust = self.known()
        level = logging.WARNING if self.fault else logging.INFO
        message = self.fault.message if self.fault else ""
        event(
            log,
            Event.TRUST_LOADED,
            level,
            message,
            keys=len(trust.keys),
            threshold=trust.threshold,
            sequence=self.standing.sequence,
        )

    def _walk(self) -> None:
        self._broken = None
        self.updates = []
        self.standing = Standing(self.files.anchor)
        try:
            for signed, followed in self._chain.walk():
                self._check_recorded(signed.update.sequence, signed.digest)
                self.standing = followed.standing
                self.updates.append(_facts(signed, followed))
            self._check_not_cut()
        except BundleError as error:
            number = self.standing.sequence + 1
            path = self._chain.path(number)
            self._broken = TrustUnusable(
                f"{path}: expected trust update {number} as it was accepted, found: "
                f"{error.message}",
                reason="TRUST_CHAIN_BROKEN",
                mend=f"Drop the trust updates from number {number} on into the inbox again",
            )
        else:
            self._record()

    def _check_recorded(self, sequence: int, digest: str) -> None:
        recorded = self._journal.fact(self._fact(sequence))
        if recorded and recorded != digest:
            raise UpdateRefused(
                f"trust update {sequence}: expected {recorded[:12]}, which this host "
                f"has accepted, found {digest[:12]} under the same number",
                reason="UPDATE_SEQUENCE_REUSED",
                mend="Give it the next number, and have it signed by the keys that count now",
            )

    def _check_not_cut(self) -> None:
        if self._journal.fact(self._fact(self.standing.sequence + 1)):
            raise TrustUnusable("it is gone", reason="TRUST_CHAIN_CUT")

    def _record(self) -> None:
        """Remember every update of the chain, so that a missing one is missed."""
        try:
            for facts in self.updates:
                if not self._journal.fact(self._fact(facts.sequence)):
                    self._journal.set_fact(self._fact(facts.sequence), facts.digest)
        except JournalError as error:  # the next start records it
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))

    def _fact(self, sequence: int) -> str:
        return f"trust.{self._chain.name}.{sequence}"

    def _note_folder(self) -> None:
        """Write into the audit trail what an operator has changed in the folder."""
        found = self._journal.fact(_SEEN_FACT)
        before = msgspec.json.decode(found, type=_Seen) if found else _Seen()
        now = _Seen(self._chain.name, sorted(self.files.revoked), sorted(self.files.stopped))
        if now == before:
            return
        if before.anchor != now.anchor:
            keys = ", ".join(sorted(key.key_id[:12] for key in self.files.anchor.keys))
            detail = f"threshold {self.files.anchor.threshold} of the keys {keys}"
            self._audit.write(Action.TRUST_CHANGED, "trust folder", "read", detail)
        for digest in sorted({*now.revoked} - {*before.revoked}):
            outcome = "revoked and stopped" if digest in now.stopped else "revoked"
            self._audit.write(Action.REVOKED, digest, outcome, "by a file of the trust folder")
        for digest in sorted({*before.revoked} - {*now.revoked}):
            self._audit.write(Action.REVOKED, digest, "not revoked any more", "its file is gone")
        try:
            self._journal.set_fact(_SEEN_FACT, msgspec.json.encode(now).decode())
        except JournalError as error:  # said once more at the next start
            event(log, Event.TASK_FAILED, logging.ERROR, str(error))

    # --- updates ------------------------------------------------------------------------------

    def offer(self, offered: Sequence[Offered]) -> list[Verdict]:
        """Take every update that follows, in the order of their numbers; what became of each.

        One that is expired counts only with a successor at hand: a host that slept for years is
        given the whole chain, whose older links have expired long ago. So all that follow are
        verified before any is taken; each is read for that, and once more when it is taken, since
        anybody may have dropped however many.
        """
        if self._unreadable is not None:
            found, mend = self._unreadable.message, self._unreadable.mend
            return [_waiting(one, f"it cannot be judged: {found}", mend) for one in offered]
        verdicts = [self._old(one) for one in offered if self._is_old(one)]
        ahead = [one for one in offered if not self._is_old(one)]
        line, refused = self._judge(ahead)
        verdicts += refused
        late: list[Verdict] = []
        time = self.clock.time()
        while line and time.is_set and line[-1].expired_at(time.now):
            late.append(_expired(line.pop()))
        taken = [self._take(one) for one in line]
        verdicts += [*taken, *late]
        judged = {id(verdict.offered) for verdict in verdicts}
        verdicts += [self._early(one) for one in ahead if id(one) not in judged]
        if any(verdict.outcome == "accepted" for verdict in verdicts):
            self._walk()
        return verdicts

    def _is_old(self, offered: Offered) -> bool:
        return offered.sequence <= self.standing.sequence

    def _old(self, offered: Offered) -> Verdict:
        number = offered.sequence
        if any(facts.digest == offered.digest for facts in self.updates):
            return Verdict(offered, "known", f"trust update {number} was imported before")
        try:
            check_position(self.standing, number, offered.digest)
        except UpdateRefused as error:
            return self._refused(offered, error)
        return _waiting(offered, "it cannot be judged")

    def _judge(self, ahead: list[Offered]) -> tuple[list[Offered], list[Verdict]]:
        """Verify what follows without a gap; the line, and what is refused beside it."""
        line: list[Offered] = []
        verdicts: list[Verdict] = []
        standing = self.standing
        claims = [(one.sequence, one) for one in ahead]
        for _, candidates in in_line(standing.sequence, claims):
            chosen, beside = self._choose(candidates, standing)
            verdicts += beside
            if chosen is None:
                break
            offered, standing = chosen
            line.append(offered)
        return line, verdicts

    def _choose(
        self, candidates: list[Offered], standing: Standing
    ) -> tuple[tuple[Offered, Standing] | None, list[Verdict]]:
        """Find the first that follows of those that claim one number, and where it leads to."""
        chosen: tuple[Offered, Standing] | None = None
        verdicts: list[Verdict] = []
        forged = 0
        for one in candidates:
            if chosen is not None and one.digest == chosen[0].digest:
                verdicts.append(Verdict(one, "known", "the same update lies here twice"))
                continue
            if forged == MAX_FORGED:
                message = f"others that claim to be trust update {one.sequence} are judged first"
                verdicts.append(_waiting(one, message))
                continue
            try:
                _, followed = self._follow(one, chosen[1] if chosen else standing)
            except UpdateRefused as error:
                verdicts.append(self._refused(one, error))
                forged += 1
            except TrustUnusable as error:
                verdicts.append(_waiting(one, error.message, error.mend))
            else:
                chosen = one, followed.standing
        return chosen, verdicts

    def _follow(self, offered: Offered, place: Standing) -> tuple[SignedUpdate, Followed]:
        """Read an update and verify that it follows.

        Raises:
            UpdateRefused: it does not.
            TrustUnusable: that cannot be said, and why.
        """
        self._check_recorded(offered.sequence, offered.digest)
        signed = offered.read()
        if signed is None or signed.digest != offered.digest:
            message = f"trust update {offered.sequence} went away or changed while it was judged"
            raise TrustUnusable(message, reason="UPDATE_CHANGED")
        return signed, follow(place, signed, self.files.applied_to(place.trust))

    def _take(self, offered: Offered) -> Verdict:
        if offered.sequence != self.standing.sequence + 1:
            return _waiting(offered, f"update {self.standing.sequence + 1} could not be kept")
        try:
            signed, followed = self._follow(offered, self.standing)
            self._chain.append(signed)
        except (StoreError, TrustUnusable, UpdateRefused) as error:
            return _waiting(offered, error.message, error.mend)
        update = signed.update
        self.clock.believe(update.created)
        before, self.standing = self.standing.trust, followed.standing
        text = (
            f"trust update {update.sequence} counts now: {update.threshold} of "
            f"{len(update.keys)} keys must sign"
        )
        signers = ", ".join(key_id[:12] for key_id in followed.signers)
        self._audit.write(
            Action.TRUST_CHANGED,
            f"trust update {update.sequence}",
            "accepted",
            f"{update.threshold} of {len(update.keys)} keys must sign; signed by {signers}"
            + (f"; {update.note}" if update.note else ""),
        )
        self._note_revocations(before, followed.standing.trust, f"trust update {update.sequence}")
        event(log, Event.TRUST_UPDATED, message=text, sequence=update.sequence)
        return Verdict(offered, "accepted", text)

    def _note_revocations(self, before: Trust, now: Trust, by: str) -> None:
        revoked = (now.revoked_keys | now.revoked_bundles) - before.revoked_keys
        for digest in sorted(revoked - before.revoked_bundles):
            outcome = "revoked and stopped" if digest in now.stopped_bundles else "revoked"
            self._audit.write(Action.REVOKED, digest, outcome, f"by {by}")

    def _refused(self, offered: Offered, error: BundleError) -> Verdict:
        return Verdict(offered, "refused", error.message, error.reason, error.mend)

    def _early(self, offered: Offered) -> Verdict:
        number = self.standing.sequence + 1
        message = f"trust update {offered.sequence} waits for number {number}"
        return _waiting(offered, message, f"Drop number {number} and all that follow it too")


def _facts(signed: SignedUpdate, followed: Followed) -> UpdateFacts:
    update = signed.update
    return UpdateFacts(
        update.sequence,
        update.created,
        signed.digest,
        update.threshold,
        len(update.keys),
        list(followed.signers),
        update.note,
    )


def _waiting(offered: Offered, message: str, mend: str = "") -> Verdict:
    return Verdict(offered, "waiting", message, mend=mend)


def _expired(offered: Offered) -> Verdict:
    assert offered.expires is not None  # noqa: S101 - it could not have expired
    message = (
        f"trust update {offered.sequence} could be imported until {offered.expires.isoformat()}, "
        f"except together with a newer one"
    )
    return _waiting(offered, message, "Drop the newer updates beside it, or ask for one")
