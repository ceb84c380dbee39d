"""Whom this host believes, and whether a verified bundle may still be refused: pure rules.

`Trust` is what the trust folder and the trust updates after it say (bundle/trust_folder.py and
bundle/trust_chain.py read them). Empty trust trusts nobody: it is an error with a sentence of its
own, never "anything goes", and never held against a bundle.

`check_policy` judges what a good signature cannot: that the bundle is not an old release replayed
(sequence) and that its dates make sense. It knows no clock; the caller passes the time.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection

import msgspec

from superbrain.domain.errors import (
    DateRefused,
    SequenceRefused,
    SignatureRefused,
    TrustUnusable,
)
from superbrain.domain.host_time import CLOCK_SKEW, HostTime
from superbrain.domain.manifest import Manifest


class PublicKey(msgspec.Struct, frozen=True):
    """A public key as SPKI PEM, and its id: the sha256 that TUF and in-toto give the same key.

    `who` says whose it is. `not_before` and `not_after` bound when new bundles may be installed
    on its word; what was installed before goes on.
    """

    key_id: str
    pem: bytes
    source: str = ""
    who: str = ""
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None

    def valid_at(self, now: dt.datetime) -> bool:
        """Tell whether new bundles may be installed on its word."""
        begun = self.not_before is None or self.not_before <= now
        return begun and (self.not_after is None or now < self.not_after)


class Trust(msgspec.Struct, frozen=True):
    """Trusted keys, how many of them must sign (`threshold`), and what is revoked.

    `revoked_keys` are key ids, `revoked_bundles` bundle digests, both lower-case hex;
    `stopped_bundles` are those of them that must not even go on serving. `security_floors` has the
    lowest sequence of each model that may serve. `resting_keys` are trusted, but not at this time.
    `fault` says why nothing can be verified at all, where that is so: nobody knows then what else
    is revoked, and nothing that does not serve already may begin to.
    """

    keys: tuple[PublicKey, ...] = ()
    threshold: int = 1
    revoked_keys: frozenset[str] = frozenset()
    revoked_bundles: frozenset[str] = frozenset()
    stopped_bundles: frozenset[str] = frozenset()
    security_floors: dict[str, int] = {}
    resting_keys: frozenset[str] = frozenset()
    fault: TrustUnusable | None = None

    def usable_keys(self) -> tuple[PublicKey, ...]:
        """Give the trusted keys that are not revoked and not resting, each once.

        Raises:
            TrustUnusable: there is none, or fewer than the threshold asks for.
        """
        if self.fault is not None:
            raise _because("nothing new is accepted", self.fault)
        if not self.keys:
            raise TrustUnusable(
                "expected at least one trusted public key, found none: nothing can be verified",
                reason="TRUST_EMPTY",
                mend="Put the author's .pub file into the trust folder's keys directory, then: "
                "superbrain reload",
            )
        if self.threshold < 1:
            raise TrustUnusable(
                f"expected a threshold of 1 or more, found {self.threshold}",
                reason="TRUST_THRESHOLD",
                mend="Set threshold in trust.toml to the number of keys that must sign",
            )
        unusable = self.revoked_keys | self.resting_keys
        by_id = {key.key_id: key for key in self.keys if key.key_id not in unusable}
        if len(by_id) < self.threshold:
            raise TrustUnusable(
                f"expected at least {self.threshold} trusted keys that are not revoked and valid "
                f"now (the threshold), found {len(by_id)}",
                reason="TRUST_THRESHOLD",
                mend="Import a trust update with usable keys, or mend the trust folder",
            )
        return tuple(by_id.values())

    def at(self, time: HostTime) -> Trust:
        """Give the trust that counts at a time: keys outside their validity rest."""
        if not time.is_set:
            return self
        resting = {key.key_id for key in self.keys if not key.valid_at(time.now)}
        return msgspec.structs.replace(self, resting_keys=frozenset(resting))

    def also_revoking(
        self, keys: Collection[str], bundles: Collection[str], stopped: Collection[str] = ()
    ) -> Trust:
        """Give this trust with more revoked, such as what an operator revoked on this host."""
        return msgspec.structs.replace(
            self,
            revoked_keys=self.revoked_keys | set(keys),
            revoked_bundles=self.revoked_bundles | set(bundles),
            stopped_bundles=self.stopped_bundles | set(stopped),
        )

    def check_not_revoked(self, digest: str) -> None:
        """Refuse a bundle whose digest is on the revocation list.

        Raises:
            SignatureRefused: it is.
        """
        if digest in self.revoked_bundles:
            raise SignatureRefused(
                f"expected a bundle that is not revoked, found {digest} among the revoked ones",
                reason="BUNDLE_REVOKED",
                mend="Use another release; `superbrain trust show` tells who revoked this one",
            )

    def check_signers(self, signers: Collection[str]) -> None:
        """Refuse what was accepted once, if too many of its signers are revoked since.

        A key that was only replaced still vouches for what it signed before.

        Raises:
            SignatureRefused: one is revoked, and fewer than the threshold remain.
        """
        revoked = sorted(self.revoked_keys.intersection(signers))
        if revoked and len(set(signers) - self.revoked_keys) < self.threshold:
            raise SignatureRefused(
                f"expected {self.threshold} signers that are not revoked, found key "
                f"{revoked[0][:12]}… which is",
                reason="KEY_REVOKED",
                mend="Drop a release that is signed by keys which are still trusted",
            )

    def check_security_floor(self, name: str, version: str, sequence: int) -> None:
        """Refuse a version that is too old to be safe.

        Raises:
            SequenceRefused: its sequence is below the model's security floor.
        """
        floor = self.security_floors.get(name, 0)
        if sequence < floor:
            raise SequenceRefused(
                f"{name} {version}: expected a sequence of {floor} or above, the security floor of "
                f"{name}, found {sequence}: versions below it are known to be unsafe",
                reason="BELOW_SECURITY_FLOOR",
                mend=f"Drop a release with a sequence of {floor} or above",
            )

    def check_may_serve(
        self, name: str, version: str, sequence: int, digest: str, signers: Collection[str]
    ) -> None:
        """Refuse a version that was good once and must not come back.

        Raises:
            SignatureRefused, SequenceRefused: it is revoked, its signers are, or it is too old.
        """
        self.check_not_revoked(digest)
        self.check_signers(signers)
        self.check_security_floor(name, version, sequence)

    def check_may_begin(
        self, name: str, version: str, sequence: int, digest: str, signers: Collection[str]
    ) -> None:
        """Refuse a version that does not serve now and must not begin to, or come back.

        Raises:
            TrustUnusable: nobody can tell whether it is revoked.
            SignatureRefused, SequenceRefused: it is, its signers are, or it is too old.
        """
        if self.fault is not None:
            raise _because("whether it is revoked is not known", self.fault)
        self.check_may_serve(name, version, sequence, digest, signers)


def _because(what: str, fault: TrustUnusable) -> TrustUnusable:
    return TrustUnusable(f"{what}: {fault.message}", reason=fault.reason, mend=fault.mend)


def bundle_digest(payload: bytes) -> str:
    """Give a bundle's identity: the sha256 of its signed manifest, in lower-case hex.

    The manifest names the sha256 of every file, so this one number stands for all bytes.
    """
    return hashlib.sha256(payload).hexdigest()


def check_policy(
    manifest: Manifest,
    digest: str,
    floor_sequence: int,
    floor_digest: str,
    time: HostTime,
) -> tuple[str, ...]:
    """Judge sequence and dates of a verified bundle.

    Args:
        manifest: the verified manifest.
        digest: the bundle's digest.
        floor_sequence: the highest sequence ever accepted for this name, 0 when there is none.
        floor_digest: the digest accepted with it, "" when there is none.
        time: this host's time.

    Returns:
        Sentences for the log about what could not be judged; usually none.

    Raises:
        SequenceRefused: an older release, or another one under the same number.
        DateRefused: expired, or made in the future.
    """
    _check_sequence(manifest, digest, floor_sequence, floor_digest)
    if not time.is_set:
        found = time.now.isoformat()
        return (f"the clock is not set ({found}): the bundle's dates were not judged",)
    _check_expiry(manifest, time)
    if time.behind:
        found = time.clock.isoformat()
        return (f"the clock is behind ({found}): whether it is from the future was not judged",)
    _check_created(manifest, time)
    return ()


def _check_sequence(
    manifest: Manifest, digest: str, floor_sequence: int, floor_digest: str
) -> None:
    if manifest.sequence < floor_sequence:
        raise SequenceRefused(
            f"{manifest.name} {manifest.version}: expected a sequence of {floor_sequence} or "
            f"above, found {manifest.sequence}: this release is older than one already accepted",
            reason="SEQUENCE_BELOW_FLOOR",
            mend="Build it again with a higher sequence, or use `superbrain rollback` on the host",
        )
    if manifest.sequence == floor_sequence and floor_digest and digest != floor_digest:
        raise SequenceRefused(
            f"{manifest.name} {manifest.version}: expected sequence {floor_sequence} to be bundle "
            f"{floor_digest[:12]}, found {digest[:12]} under the same number",
            reason="SEQUENCE_REUSED",
            mend="Give every release its own sequence, higher than the last one's",
        )


def _check_created(manifest: Manifest, time: HostTime) -> None:
    if manifest.created > time.now + CLOCK_SKEW:
        raise DateRefused(
            f"{manifest.name} {manifest.version}: expected a bundle made before now "
            f"({time.now.isoformat()}), found created = {manifest.created.isoformat()}",
            reason="CREATED_IN_FUTURE",
            mend="Check the clock of this host and of the one that built the bundle",
        )


def _check_expiry(manifest: Manifest, time: HostTime) -> None:
    if manifest.expires is not None and manifest.expires <= time.now:
        raise DateRefused(
            f"{manifest.name} {manifest.version}: expected a bundle that is still valid now "
            f"({time.now.isoformat()}), found expires = {manifest.expires.isoformat()}",
            reason="EXPIRED",
            mend="Ask its author for a newer release; if that time is wrong, see docs/trust.md",
        )
