"""The trust folder: whom this host believes, as files that only an administrator may change.

    keys/NAME.pub     trusted public keys, one SPKI PEM file each
    trust.toml        optional: threshold = 1, revoked_keys = [], revoked_bundles = []

Whoever can write here decides what runs on this host. So the folder, `keys` and every file in them
must belong to root or to the user that reads them, and nobody else may write them; anything
else is an error, not a warning.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path

import msgspec

from superbrain.bundle.keys import MAX_KEY_FILE_BYTES, parse_public_key
from superbrain.domain.errors import SignatureRefused, shown
from superbrain.domain.trust import PublicKey, Trust

MAX_TRUST_FILE_BYTES = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}")


class _TrustToml(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    threshold: int = 1
    revoked_keys: list[str] = []
    revoked_bundles: list[str] = []


def read_trust_folder(folder: Path) -> Trust:
    """Read the trust folder; the result has at least `threshold` keys that are not revoked.

    Raises:
        SignatureRefused: the folder is missing or empty, a file is malformed, or somebody else
            could have written it.
    """
    _check_folder(folder)
    keys = _read_keys(folder)
    rules = _read_rules(folder / "trust.toml")
    trust = Trust(
        keys=keys,
        threshold=rules.threshold,
        revoked_keys=frozenset(rules.revoked_keys),
        revoked_bundles=frozenset(rules.revoked_bundles),
    )
    if not keys:
        raise SignatureRefused(
            f"{folder}: expected a trusted public key in {folder / 'keys'}, found none: "
            f"no bundle can be verified",
            reason="TRUST_EMPTY",
            mend="Make a key pair with `superbrain key generate NAME` and put NAME.pub there",
        )
    trust.usable_keys()
    return trust


def _read_keys(folder: Path) -> tuple[PublicKey, ...]:
    directory = folder / "keys"
    if not directory.exists():
        return ()
    _check_folder(directory)
    by_id: dict[str, PublicKey] = {}
    for path in sorted(directory.glob("*.pub")):
        if not path.name.startswith("."):
            key = parse_public_key(_read_private(path, MAX_KEY_FILE_BYTES), str(path))
            by_id.setdefault(key.key_id, key)
    return tuple(by_id.values())


def _read_rules(path: Path) -> _TrustToml:
    if not path.exists() and not path.is_symlink():
        return _TrustToml()
    data = _read_private(path, MAX_TRUST_FILE_BYTES)
    try:
        rules = msgspec.convert(tomllib.loads(data.decode("utf-8")), _TrustToml)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise _malformed(path, "threshold, revoked_keys and revoked_bundles", str(error)) from error
    if rules.threshold < 1:
        raise _malformed(path, "a threshold of 1 or more", str(rules.threshold))
    for value in (*rules.revoked_keys, *rules.revoked_bundles):
        if not _HEX.fullmatch(value):
            raise _malformed(path, "revocations as 64 lower-case hex digits", shown(value))
    return rules


def _check_folder(folder: Path) -> None:
    try:
        found = folder.lstat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise _malformed(folder, "a folder", "something else")
    _check_owner(folder, found)


def _read_private(path: Path, limit: int) -> bytes:
    """Read a file that nobody but root and this user can have written; never through a link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise _malformed(path, f"a regular file of at most {limit} bytes", "something else")
        _check_owner(path, found)
        return file.read(limit)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid()}:
        raise SignatureRefused(
            f"{path}: expected it to belong to root or to user id {os.geteuid()}, "
            f"found owner {found.st_uid}: its owner could decide whom this host trusts",
            reason="TRUST_OWNER",
            mend=f"Check the content, then: chown root {path}",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SignatureRefused(
            f"{path}: expected it to be writable by its owner only, "
            f"found mode {stat.S_IMODE(found.st_mode):04o}: others could decide whom this host "
            f"trusts",
            reason="TRUST_WRITABLE",
            mend=f"Check the content, then: chmod go-w {path}",
        )


def _unreadable(path: Path, error: OSError) -> SignatureRefused:
    return SignatureRefused(
        f"{path}: expected to read it, found: {error.strerror}",
        reason="TRUST_UNREADABLE",
        mend="The trust folder holds keys/*.pub and, if wanted, trust.toml",
    )


def _malformed(path: Path, expected: str, found: str) -> SignatureRefused:
    return SignatureRefused(
        f"{path}: expected {expected}, found {found[:300]}", reason="TRUST_MALFORMED"
    )
