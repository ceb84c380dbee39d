"""The chain of trust updates: each verified against the one before it, kept and read again.

    ROOT/ANCHOR/000001.sbt, 000002.sbt …     every accepted update, as it was signed

ANCHOR names the keys and the threshold of the trust folder that the chain starts from. The files
lie in the state folder, which the daemon can write; so they are believed only by their signatures,
from the first to the last, at every start. A file that was changed breaks the chain there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from superbrain.bundle.disk import fsync_folder, remove, rename, storing
from superbrain.bundle.keys import parse_public_key
from superbrain.bundle.signing import TRUST_UPDATE, read_envelope, verify_envelope
from superbrain.domain.errors import SignatureRefused, TrustUnusable, UpdateRefused
from superbrain.domain.trust import Trust, bundle_digest
from superbrain.domain.trust_update import (
    MAX_SEQUENCE,
    Standing,
    TrustUpdate,
    check_position,
    malformed,
    parse_update,
)

SUFFIX = ".sbt"


class SignedUpdate(msgspec.Struct, frozen=True):
    """An update as it came: well-formed, but nobody vouches for it yet.

    `claimed` are the key ids that its signatures name; `digest` is the sha256 of what is signed.
    """

    data: bytes
    update: TrustUpdate
    digest: str
    claimed: tuple[str, ...]


class Followed(NamedTuple):
    """Where a host stands after an update, and which keys signed it."""

    standing: Standing
    signers: tuple[str, ...]


def read_update(data: bytes) -> SignedUpdate:
    """Read an update and check its shape, *not* its signatures.

    Raises:
        SignatureRefused, UpdateRefused: it is no trust update, or breaks a rule of the format.
    """
    signed = read_envelope(data, TRUST_UPDATE)
    update = parse_update(signed.payload)
    for key in update.keys:
        try:
            found = parse_public_key(key.pem.encode(), f"key {key.id[:12]}…")
        except SignatureRefused as error:
            malformed(f"keys: {error.message}")
        if found.key_id != key.id or found.pem.decode() != key.pem:
            malformed(
                f"keys: expected the id and PEM of one key, found {key.id[:12]}… beside "
                f"another or in another spelling"
            )
    return SignedUpdate(data, update, bundle_digest(signed.payload), signed.signers)


def follow(standing: Standing, signed: SignedUpdate, old: Trust | None = None) -> Followed:
    """Verify that an update follows: signed by a threshold of the old keys and of its own.

    Args:
        standing: where the host stands.
        signed: the update, whose number must be the next one.
        old: the trust whose keys count as the old ones, if that is not `standing.trust` itself
            (an operator may have revoked some of them on this host).

    Raises:
        UpdateRefused: it does not follow, and why.
        TrustUnusable: too few of the old keys are left to verify anything.
    """
    update = signed.update
    check_position(standing, update.sequence, signed.digest)
    if update.sequence != standing.sequence + 1:
        raise UpdateRefused(
            f"trust update {update.sequence}: expected number {standing.sequence + 1}",
            reason="UPDATE_SEQUENCE_GAP",
            mend="Drop the updates in between too",
        )
    trust = update.trust()
    before = _signers(signed, old or standing.trust, f"before it (update {standing.sequence})")
    try:
        after = _signers(signed, trust, "of its own new set")
    except TrustUnusable as error:
        malformed(error.message)
    standing = Standing(trust, update.sequence, signed.digest, update.created)
    return Followed(standing, tuple(sorted({*before, *after})))


def _signers(signed: SignedUpdate, trust: Trust, which: str) -> tuple[str, ...]:
    try:
        return verify_envelope(signed.data, trust, TRUST_UPDATE).signers
    except SignatureRefused as error:
        usable = {key.key_id for key in trust.usable_keys()}
        named = len(usable.intersection(signed.claimed))
        old = which.startswith("before")
        raise UpdateRefused(
            f"trust update {signed.update.sequence}: expected valid signatures of "
            f"{trust.threshold} of the {len(usable)} keys {which}, found {named} in their names"
            + ("" if named < trust.threshold else ", not all of them valid"),
            reason="UPDATE_OLD_KEYS" if old else "UPDATE_NEW_KEYS",
            mend="Have it signed by more of them: superbrain trust sign FILE --key KEY",
        ) from error


class TrustChain:
    """The updates that count after one anchor, on the disk. Only one process may write to it."""

    def __init__(self, root: Path, anchor: Trust) -> None:
        self.anchor = anchor
        self.name = anchor_name(anchor)
        self._folder = root / self.name

    def walk(self) -> Iterator[tuple[SignedUpdate, Followed]]:
        """Read and verify every update from the anchor on.

        Raises:
            BundleError: the next file cannot be read or does not follow; those before it do.
        """
        standing = Standing(self.anchor)
        while (path := self.path(standing.sequence + 1)).exists() or path.is_symlink():
            signed = read_update(_read(path))
            followed = follow(standing, signed)
            yield signed, followed
            standing = followed.standing

    def append(self, signed: SignedUpdate) -> None:
        """Write an update that follows; it is on the disk when this returns, or not there at all.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.path(signed.update.sequence)
        part = path.with_suffix(".part")
        with storing(path):
            os.makedirs(self._folder, mode=0o750, exist_ok=True)  # noqa: PTH103 - as in bundle.disk
            with contextlib.suppress(FileNotFoundError):
                remove(part)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(part, flags, 0o640), "wb") as file:
                file.write(signed.data)
                file.flush()
                os.fsync(file.fileno())
            rename(part, path)
        fsync_folder(self._folder)
        fsync_folder(self._folder.parent)

    def path(self, sequence: int) -> Path:
        """Where the update of this number lies."""
        assert sequence <= MAX_SEQUENCE + 1  # noqa: S101 - updates are bounded when they are read
        return self._folder / f"{sequence:06d}{SUFFIX}"


def anchor_name(anchor: Trust) -> str:
    """Name keys and threshold of a trust folder, whatever their files are called."""
    keys = sorted({key.key_id for key in anchor.keys})
    return hashlib.sha256(" ".join([str(anchor.threshold), *keys]).encode()).hexdigest()[:16]


def _read(path: Path) -> bytes:
    limit = TRUST_UPDATE.max_envelope_bytes + 1
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise TrustUnusable(
            f"{path}: expected to read it, found: {error.strerror}", reason="TRUST_CHAIN_UNREADABLE"
        ) from error
