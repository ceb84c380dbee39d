"""Whom this host believes, and whether a verified bundle may still be refused: pure rules.

`Trust` is what the trust folder says (bundle/trust_folder.py reads it). Empty trust trusts nobody:
it is an error with a sentence of its own, never "anything goes".

`check_policy` judges what a good signature cannot: that the bundle is not an old release replayed
(sequence) and that its dates make sense. It knows no clock; the caller passes `now`.
"""

from __future__ import annotations

import datetime as dt
import hashlib

import msgspec

from superbrain.domain.errors import DateRefused, SequenceRefused, SignatureRefused
from superbrain.domain.manifest import Manifest

CLOCK_SKEW = dt.timedelta(hours=24)
CLOCK_NOT_SET_BEFORE = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


class PublicKey(msgspec.Struct, frozen=True):
    """A public key as SPKI PEM, and its id: the sha256 that TUF and in-toto give the same key."""

    key_id: str
    pem: bytes
    source: str = ""


class Trust(msgspec.Struct, frozen=True):
    """Trusted keys, how many of them must sign (`threshold`), and what is revoked.

    `revoked_keys` are key ids, `revoked_bundles` bundle digests, both lower-case hex.
    """

    keys: tuple[PublicKey, ...] = ()
    threshold: int = 1
    revoked_keys: frozenset[str] = frozenset()
    revoked_bundles: frozenset[str] = frozenset()

    def usable_keys(self) -> tuple[PublicKey, ...]:
        """Give the trusted keys that are not revoked, each once.

        Raises:
            SignatureRefused: there is none, or fewer than the threshold asks for.
        """
        if not self.keys:
            raise SignatureRefused(
                "expected at least one trusted public key, found none: nothing can be verified",
                reason="TRUST_EMPTY",
                mend="Put the author's .pub file into the trust folder's keys directory",
            )
        if self.threshold < 1:
            raise SignatureRefused(
                f"expected a threshold of 1 or more, found {self.threshold}",
                reason="TRUST_THRESHOLD",
                mend="Set threshold in trust.toml to the number of keys that must sign",
            )
        by_id = {key.key_id: key for key in self.keys if key.key_id not in self.revoked_keys}
        if len(by_id) < self.threshold:
            raise SignatureRefused(
                f"expected at least {self.threshold} trusted keys that are not revoked "
                f"(the threshold), found {len(by_id)}",
                reason="TRUST_THRESHOLD",
                mend="Add public keys to the trust folder or lower threshold in trust.toml",
            )
        return tuple(by_id.values())

    def check_not_revoked(self, digest: str) -> None:
        """Refuse a bundle whose digest is on the revocation list.

        Raises:
            SignatureRefused: it is.
        """
        if digest in self.revoked_bundles:
            raise SignatureRefused(
                f"expected a bundle that is not revoked, found {digest} in revoked_bundles",
                reason="BUNDLE_REVOKED",
                mend="Use another release; trust.toml of this host revokes this one",
            )


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
    now: dt.datetime,
) -> tuple[str, ...]:
    """Judge sequence and dates of a verified bundle.

    Args:
        manifest: the verified manifest.
        digest: the bundle's digest.
        floor_sequence: the highest sequence ever accepted for this name, 0 when there is none.
        floor_digest: the digest accepted with it, "" when there is none.
        now: this host's time, with its time zone.

    Returns:
        Sentences for the log about what could not be judged; usually none.

    Raises:
        SequenceRefused: an older release, or another one under the same number.
        DateRefused: expired, or made in the future.
    """
    _check_sequence(manifest, digest, floor_sequence, floor_digest)
    if now < CLOCK_NOT_SET_BEFORE:
        return (f"the clock is not set ({now.isoformat()}): the bundle's dates were not judged",)
    _check_dates(manifest, now)
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


def _check_dates(manifest: Manifest, now: dt.datetime) -> None:
    if manifest.created > now + CLOCK_SKEW:
        raise DateRefused(
            f"{manifest.name} {manifest.version}: expected a bundle made before now "
            f"({now.isoformat()}), found created = {manifest.created.isoformat()}",
            reason="CREATED_IN_FUTURE",
            mend="Check the clock of this host and of the one that built the bundle",
        )
    if manifest.expires is not None and manifest.expires <= now:
        raise DateRefused(
            f"{manifest.name} {manifest.version}: expected a bundle that is still valid now "
            f"({now.isoformat()}), found expires = {manifest.expires.isoformat()}",
            reason="EXPIRED",
            mend="Ask its author for a newer release",
        )
