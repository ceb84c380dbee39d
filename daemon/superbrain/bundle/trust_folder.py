"""The trust folder: whom this host believes, as files that only an administrator may change.

    keys/NAME.pub     trusted public keys, one SPKI PEM file each
    trust.toml        optional: threshold = 1, revoked_keys = [], revoked_bundles = []
    revoked/HEX       optional: one file for each key or bundle revoked on this host; it may be
                      empty, or TOML: why = "…", stop = true (`superbrain trust revoke` writes it)

Keys and threshold are the *anchor* of the trust updates that come after (trust_chain.py). What is
revoked here is revoked whatever an update says.

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
from typing import TypeVar

import msgspec

from superbrain.bundle.keys import MAX_KEY_FILE_BYTES, parse_public_key
from superbrain.domain.errors import SignatureRefused, TrustUnusable, shown
from superbrain.domain.trust import PublicKey, Trust

MAX_TRUST_FILE_BYTES = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class LocalRevocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is written in a file under `revoked`."""

    stop: bool = False
    why: str = ""


class _TrustToml(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    threshold: int = 1
    revoked_keys: list[str] = []
    revoked_bundles: list[str] = []


class TrustFiles(msgspec.Struct, frozen=True):
    """What the folder says: the anchor (keys and threshold alone), and what is revoked here.

    A file under `revoked` is in both sets, for key ids and digests are sha256 sums and never meet.
    """

    anchor: Trust
    revoked_keys: frozenset[str] = frozenset()
    revoked_bundles: frozenset[str] = frozenset()
    stopped: frozenset[str] = frozenset()

    @property
    def revoked(self) -> frozenset[str]:
        """All key ids and digests that are revoked here."""
        return self.revoked_keys | self.revoked_bundles

    def applied_to(self, trust: Trust) -> Trust:
        """Give a trust with what is revoked on this host taken away."""
        return trust.also_revoking(self.revoked_keys, self.revoked_bundles, self.stopped)


def read_trust_folder(folder: Path) -> Trust:
    """Read the trust folder; the result has at least `threshold` keys that are not revoked.

    Raises:
        TrustUnusable: the folder is missing or empty, a file is malformed, or somebody else
            could have written it.
    """
    files = read_trust_files(folder)
    trust = files.applied_to(files.anchor)
    trust.usable_keys()
    return trust


def read_trust_files(folder: Path) -> TrustFiles:
    """Read what the trust folder says, whether or not enough keys are left by it.

    Raises:
        TrustUnusable: the folder is missing or has no key, a file is malformed, or somebody else
            could have written it.
    """
    _check_folder(folder)
    keys = _read_keys(folder)
    rules = _read_rules(folder / "trust.toml")
    files = read_revoked(folder)
    if not keys:
        raise TrustUnusable(
            f"{folder}: expected a trusted public key in {folder / 'keys'}, found none: "
            f"no bundle can be verified",
            reason="TRUST_EMPTY",
            mend="Make a key pair with `superbrain key generate NAME` and put NAME.pub there",
        )
    return TrustFiles(
        Trust(keys=keys, threshold=rules.threshold),
        frozenset({*rules.revoked_keys, *files}),
        frozenset({*rules.revoked_bundles, *files}),
        frozenset(digest for digest, found in files.items() if found.stop),
    )


def read_revoked(folder: Path) -> dict[str, LocalRevocation]:
    """Read what is revoked by files of its own: by key id or bundle digest.

    Raises:
        TrustUnusable: a file is malformed, or somebody else could have written it.
    """
    found = {}
    for path in _files_in(folder / "revoked"):
        if not _HEX.fullmatch(path.name):
            raise _malformed(path, "a name of 64 lower-case hex digits", shown(path.name))
        found[path.name] = _toml(path, LocalRevocation, "nothing, or why and stop")
    return found


def _read_keys(folder: Path) -> tuple[PublicKey, ...]:
    by_id: dict[str, PublicKey] = {}
    for path in _files_in(folder / "keys"):
        if path.suffix == ".pub":
            data = _read_private(path, MAX_KEY_FILE_BYTES)
            try:
                key = parse_public_key(data, str(path))
            except SignatureRefused as error:
                raise TrustUnusable(error.message, reason=error.reason, mend=error.mend) from error
            by_id.setdefault(key.key_id, key)
    return tuple(by_id.values())


def _read_rules(path: Path) -> _TrustToml:
    if not _is_there(path):
        return _TrustToml()
    rules = _toml(path, _TrustToml, "threshold, revoked_keys and revoked_bundles")
    if rules.threshold < 1:
        raise _malformed(path, "a threshold of 1 or more", str(rules.threshold))
    for value in (*rules.revoked_keys, *rules.revoked_bundles):
        if not _HEX.fullmatch(value):
            raise _malformed(path, "revocations as 64 lower-case hex digits", shown(value))
    return rules


def _toml(path: Path, kind: type[_T], expected: str) -> _T:
    data = _read_private(path, MAX_TRUST_FILE_BYTES)
    try:
        return msgspec.convert(tomllib.loads(data.decode("utf-8")), kind)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise _malformed(path, expected, str(error)) from error


def _files_in(folder: Path) -> list[Path]:
    """List a folder that may be missing, sorted, without what is hidden."""
    if not _is_there(folder):
        return []
    _check_folder(folder)
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


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
        raise TrustUnusable(
            f"{path}: expected it to belong to root or to user id {os.geteuid()}, "
            f"found owner {found.st_uid}: its owner could decide whom this host trusts",
            reason="TRUST_OWNER",
            mend=f"Check the content, then: chown root {path}; superbrain reload",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise TrustUnusable(
            f"{path}: expected it to be writable by its owner only, "
            f"found mode {stat.S_IMODE(found.st_mode):04o}: others could decide whom this host "
            f"trusts",
            reason="TRUST_WRITABLE",
            mend=f"Check the content, then: chmod go-w {path}; superbrain reload",
        )


def _unreadable(path: Path, error: OSError) -> TrustUnusable:
    mend = "The trust folder holds keys/*.pub and, if wanted, trust.toml"
    if isinstance(error, PermissionError):
        mend = f"Let the service's user read it: chmod a+rX {path.parent} {path}; superbrain reload"
    return TrustUnusable(
        f"{path}: expected to read it, found: {error.strerror}",
        reason="TRUST_UNREADABLE",
        mend=mend,
    )


def _malformed(path: Path, expected: str, found: str) -> TrustUnusable:
    return TrustUnusable(
        f"{path}: expected {expected}, found {found[:300]}", reason="TRUST_MALFORMED"
    )
