"""Keys as files: making them, loading them, and the id by which everybody names them.

A private key is a PKCS#8 PEM file with mode 0600, with a passphrase if wanted; its public key is an
SPKI PEM file ending in `.pub`. Ed25519 is the default; ECDSA P-256 is there for those who must
use it. The key id is the one that securesystemslib (TUF, in-toto) computes: the sha256 of
the public key's canonical JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

# securesystemslib re-exports these without `__all__`, which strict mypy takes for private.
from securesystemslib.signer import (  # type: ignore[attr-defined]
    Key,
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

from superbrain.bundle.disk import not_written, write_new
from superbrain.domain.errors import SignatureRefused, shown
from superbrain.domain.trust import PublicKey

KeyKind = Literal["ed25519", "p256"]
PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
MAX_KEY_FILE_BYTES = 16 << 10
_MAKE_ONE = "Make one with `superbrain key generate NAME`"
_DAMAGED = "Copy it again from where it was made, or take another key"
_NAME_PRIVATE = "Name the private key, which signs: NAME.key"
_NAME_PUBLIC = "Name the public key beside it: NAME.pub; the private one stays with its owner"


class KeyFiles(msgspec.Struct, frozen=True):
    """Where a new key pair lies, and its id."""

    private: Path
    public: Path
    key_id: str


class SigningKey(Signer):
    """A private key that signs the same bytes the same way every time.

    securesystemslib's own signer draws a random nonce for ECDSA; this one follows RFC 6979, so
    that building a bundle twice gives identical files. Ed25519 is deterministic by itself.
    """

    def __init__(self, private: PrivateKey) -> None:
        self._private = private
        self._public = SSlibKey.from_crypto(private.public_key())

    @property
    def public_key(self) -> SSlibKey:
        return self._public

    @property
    def key_id(self) -> str:
        """The id of its public key."""
        return self._public.keyid

    def sign(self, payload: bytes) -> Signature:
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            raw = self._private.sign(payload)
        else:
            algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
            raw = self._private.sign(payload, algorithm)
        return Signature(self.key_id, raw.hex())

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: Key,
        secrets_handler: SecretsHandler | None = None,
    ) -> SigningKey:
        """Refuse: keys are loaded from files by `load_signing_key`, not from URIs."""
        raise NotImplementedError("expected a key file: load it with load_signing_key")


def generate_key(
    directory: Path, name: str, kind: KeyKind = "ed25519", passphrase: str = ""
) -> KeyFiles:
    """Make a key pair: `NAME.key` (mode 0600, encrypted if there is a passphrase) and `NAME.pub`.

    Raises:
        SignatureRefused: one of the files is there already, or cannot be written; neither is made.
    """
    private: PrivateKey
    if kind == "ed25519":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
    private_pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    files = KeyFiles(
        directory / f"{name}.key", directory / f"{name}.pub", SigningKey(private).key_id
    )
    for path in (files.private, files.public):
        if path.exists() or path.is_symlink():
            raise _key_exists(path)
    _write_new(files.private, private_pem, 0o600)
    try:
        _write_new(files.public, _public_pem(private.public_key()), 0o644)
    except BaseException:
        files.private.unlink(missing_ok=True)
        raise
    return files


def load_signing_key(path: Path, ask: Callable[[], str] | None = None) -> SigningKey:
    """Load a private key; `ask` is called for the passphrase if the file is encrypted.

    Raises:
        SignatureRefused: unreadable, no Ed25519 or P-256 private key, or a wrong passphrase.
    """
    pem = _read_key_file(path)
    try:
        private = serialization.load_pem_private_key(pem, None)
    except TypeError:  # this is how cryptography says that the file is encrypted
        private = _decrypted(path, pem, ask)
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"PUBLIC KEY" in pem:
            raise _unreadable(path, "a public key", _NAME_PRIVATE) from error
        raise _unreadable(path, f"one that does not load: {error}", _DAMAGED) from error
    if isinstance(private, ed25519.Ed25519PrivateKey) or (
        isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1)
    ):
        return SigningKey(private)
    raise _unreadable(path, f"a {type(private).__name__}")


def _decrypted(path: Path, pem: bytes, ask: Callable[[], str] | None) -> PrivateKeyTypes:
    if ask is None:
        found = "an encrypted key, and no way to ask for it"
        raise _unreadable(path, found, "Use a key without passphrase from a protected place")
    try:
        return serialization.load_pem_private_key(pem, ask().encode())
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        found = "an encrypted one that the passphrase does not open"
        raise _unreadable(path, found, "Type its passphrase again") from error


def load_public_key(path: Path) -> PublicKey:
    """Load a public key file.

    Raises:
        SignatureRefused: unreadable, or no Ed25519 or P-256 public key.
    """
    return parse_public_key(_read_key_file(path), str(path))


def parse_public_key(pem: bytes, source: str) -> PublicKey:
    """Read a public key from PEM; `source` names it in messages.

    Raises:
        SignatureRefused: not an Ed25519 or P-256 public key.
    """
    try:
        public = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"PRIVATE KEY" in pem:
            raise _unreadable(source, "a private key", _NAME_PUBLIC) from error
        raise _unreadable(source, "one that does not load", _DAMAGED) from error
    if isinstance(public, ed25519.Ed25519PublicKey) or (
        isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
    ):
        return PublicKey(SSlibKey.from_crypto(public).keyid, _public_pem(public), source)
    raise _unreadable(source, f"a {type(public).__name__}")


def verification_key(key: PublicKey) -> SSlibKey:
    """Give the object with which securesystemslib verifies."""
    public = serialization.load_pem_public_key(key.pem)
    return SSlibKey.from_crypto(public, keyid=key.key_id)


def _public_pem(public: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        found = error.strerror or "an input error"
        if isinstance(error, FileNotFoundError):
            raise _unreadable(path, found) from error
        raise _unreadable(path, found, "Read it as a user who may, or name another file") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        write_new(path, data, mode)
    except FileExistsError as error:
        raise _key_exists(path) from error
    except OSError as error:
        message, mend = not_written(path, error)
        raise SignatureRefused(message, reason="KEY_NOT_WRITTEN", mend=mend) from error


def _key_exists(path: Path) -> SignatureRefused:
    return SignatureRefused(
        f"{path}: expected no file there yet, found one; keys are never overwritten",
        reason="KEY_EXISTS",
        mend="Choose another name or directory",
    )


def _unreadable(source: Path | str, found: str, mend: str = _MAKE_ONE) -> SignatureRefused:
    return SignatureRefused(
        f"{shown(str(source))}: expected an Ed25519 or ECDSA P-256 key as PEM, found {found}",
        reason="KEY_UNREADABLE",
        mend=mend,
    )
