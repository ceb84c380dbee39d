"""Key files: made once, readable by their owner, loaded or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from superbrain.bundle.keys import (
    KeyKind,
    generate_key,
    load_public_key,
    load_signing_key,
)
from superbrain.domain.errors import SignatureRefused
from tests.support.bundles import sign_key
from tests.support.faulty_disk import Fault, failing

KINDS: list[KeyKind] = ["ed25519", "p256"]


@pytest.mark.parametrize("kind", KINDS)
def test_public_and_private_file_have_the_same_id(tmp_path: Path, kind: KeyKind) -> None:
    files = generate_key(tmp_path, "author", kind)
    assert load_public_key(files.public).key_id == load_signing_key(files.private).key_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_id_is_the_one_securesystemslib_computes(tmp_path: Path, kind: KeyKind) -> None:
    files = generate_key(tmp_path, "author", kind)
    public = serialization.load_pem_public_key(files.public.read_bytes())
    assert files.key_id == SSlibKey.from_crypto(public).keyid


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_are_signed_the_same_way(tmp_path: Path, kind: KeyKind) -> None:
    key = sign_key(tmp_path, kind=kind).signing
    assert key.sign(b"abc").signature == key.sign(b"abc").signature


def test_only_the_owner_can_read_the_private_key(tmp_path: Path) -> None:
    assert generate_key(tmp_path, "author").private.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("suffix", [".key", ".pub"])
def test_an_existing_file_is_never_overwritten(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"author{suffix}").write_text("precious")
    with pytest.raises(SignatureRefused) as caught:
        generate_key(tmp_path, "author")
    assert caught.value.reason == "KEY_EXISTS"
    assert (tmp_path / f"author{suffix}").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


FULL = [("ENOSPC", number) for number in range(1, 7)] + [("short", 3), ("short", 6)]


@pytest.mark.parametrize(("kind", "number"), FULL)
def test_a_full_disk_is_told_and_no_half_of_a_pair_stays(
    tmp_path: Path, kind: str, number: int
) -> None:
    with failing() as operations:
        operations.arm(Fault(kind, number))
        with pytest.raises(SignatureRefused, match="No space left on device") as caught:
            generate_key(tmp_path, "author")
    assert (caught.value.reason, caught.value.mend) == (
        "KEY_NOT_WRITTEN",
        "Free some space on that disk",
    )
    assert list(tmp_path.iterdir()) == []
    generate_key(tmp_path, "author")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SignatureRefused, match="missing") as caught:
        generate_key(tmp_path / "missing", "author")
    assert caught.value.reason == "KEY_NOT_WRITTEN"


def test_an_encrypted_key_loads_with_its_passphrase(tmp_path: Path) -> None:
    files = generate_key(tmp_path, "author", passphrase="open sesame")
    assert load_signing_key(files.private, lambda: "open sesame").key_id == files.key_id


@pytest.mark.parametrize("ask", [None, lambda: "wrong", lambda: ""])
def test_an_encrypted_key_without_its_passphrase_is_refused(tmp_path: Path, ask: object) -> None:
    files = generate_key(tmp_path, "author", passphrase="open sesame")
    with pytest.raises(SignatureRefused) as caught:
        load_signing_key(files.private, ask)  # type: ignore[arg-type]
    assert caught.value.reason == "KEY_UNREADABLE"


def test_a_public_key_in_place_of_a_private_one_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(SignatureRefused, match="found a public key") as caught:
        load_signing_key(generate_key(tmp_path, "author").public)
    assert "Name the private key" in caught.value.mend


def test_a_private_key_in_place_of_a_public_one_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(SignatureRefused, match="found a private key") as caught:
        load_public_key(generate_key(tmp_path, "author").private)
    assert "Name the public key" in caught.value.mend


@pytest.mark.parametrize("load", [load_public_key, load_signing_key])
def test_only_who_has_no_key_is_told_to_make_one(
    tmp_path: Path, load: Callable[[Path], object]
) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"not a key")
    for path, makes_one in ((tmp_path / "none", True), (damaged, False), (tmp_path, False)):
        with pytest.raises(SignatureRefused) as caught:
            load(path)
        assert ("superbrain key generate" in caught.value.mend) is makes_one, path
        assert caught.value.mend


@pytest.mark.parametrize(
    "private",
    [
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["rsa", "p384"],
)
def test_keys_of_other_kinds_are_refused(
    tmp_path: Path, private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    path = tmp_path / "other.pub"
    path.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(SignatureRefused, match="expected an Ed25519 or ECDSA P-256"):
        load_public_key(path)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "author.pub"
    path.write_bytes(content)
    with pytest.raises(SignatureRefused):
        load_public_key(path)
