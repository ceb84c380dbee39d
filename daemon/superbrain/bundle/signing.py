"""Signatures over manifests: making and verifying DSSE envelopes.

An envelope is JSON: the payload in base64, its type, and signatures over both (the "PAE" of
https://github.com/secure-systems-lab/dsse). The signatures are checked by securesystemslib; its
shape is checked here beforehand, because that library ignores what it does not know.

Everything fails closed: whatever the library raises becomes `SignatureRefused`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import msgspec
from securesystemslib.dsse import Envelope

from superbrain.bundle.keys import SigningKey, verification_key
from superbrain.domain.errors import SignatureRefused, shown
from superbrain.domain.manifest_json import MAX_MANIFEST_BYTES
from superbrain.domain.strict_json import NotJson, strict_loads
from superbrain.domain.trust import Trust

PAYLOAD_TYPE = "application/vnd.superbrain.manifest.v1+json"
MAX_ENVELOPE_BYTES = MAX_MANIFEST_BYTES * 3 // 2
MAX_SIGNATURES = 32
MAX_SIGNATURE_BYTES = 1024
_KEY_ID = re.compile(r"[0-9a-f]{64}")


class _SignatureJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _EnvelopeJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: str
    payloadType: str  # noqa: N815 - the name is DSSE's
    signatures: list[_SignatureJson]


class SignedPayload(msgspec.Struct, frozen=True):
    """The payload of an envelope and the ids of the keys that sign it.

    From `read_envelope` the ids are only what the envelope claims; from `verify_envelope` they
    are the trusted keys whose signatures were verified.
    """

    payload: bytes
    signers: tuple[str, ...]


def sign_payload(payload: bytes, keys: Sequence[SigningKey]) -> bytes:
    """Sign a manifest with every key: the bytes of MANIFEST.dsse, the same for the same input.

    Raises:
        SignatureRefused: no key is given, or one is given twice.
    """
    if not keys or len({key.key_id for key in keys}) != len(keys):
        raise SignatureRefused(
            f"expected one or more different keys to sign with, found {len(keys)}",
            reason="KEY_NONE",
            mend="Name each private key once: --key FILE",
        )
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    for key in sorted(keys, key=lambda key: key.key_id):
        envelope.sign(key)
    return msgspec.json.encode(envelope.to_dict(), order="sorted")


def read_envelope(data: bytes) -> SignedPayload:
    """Check an envelope's shape and give its payload, *unverified*.

    Raises:
        SignatureRefused: not exactly the shape that docs/bundle-format.md describes.
    """
    shape = _decode(data)
    return SignedPayload(
        _base64("payload", shape.payload), tuple(item.keyid for item in shape.signatures)
    )


def verify_envelope(data: bytes, trust: Trust) -> SignedPayload:
    """Verify an envelope: `trust.threshold` different trusted keys must have signed it.

    Raises:
        SignatureRefused: the trust is empty, or the envelope is malformed or not signed by enough
            trusted keys.
    """
    keys = trust.usable_keys()
    shape = _decode(data)
    try:
        envelope = Envelope.from_dict(msgspec.to_builtins(shape))
        accepted = envelope.verify([verification_key(key) for key in keys], trust.threshold)
    except Exception as error:  # whatever the libraries meet, nothing is accepted
        claimed = [item.keyid for item in shape.signatures]
        raise _not_trusted(claimed, trust) from error
    return SignedPayload(envelope.payload, tuple(sorted(accepted)))


def _decode(data: bytes) -> _EnvelopeJson:
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _malformed(f"at most {MAX_ENVELOPE_BYTES} bytes", f"{len(data)}")
    try:
        shape = msgspec.convert(strict_loads(data), _EnvelopeJson)
    except (NotJson, msgspec.ValidationError) as error:
        raise _malformed("the fields payload, payloadType and signatures", str(error)) from error
    if shape.payloadType != PAYLOAD_TYPE:
        raise _malformed(f"payloadType {PAYLOAD_TYPE}", shown(shape.payloadType))
    if not 1 <= len(shape.signatures) <= MAX_SIGNATURES:
        raise _malformed(f"1 to {MAX_SIGNATURES} signatures", f"{len(shape.signatures)}")
    if len(_base64("payload", shape.payload)) > MAX_MANIFEST_BYTES:
        raise _malformed(f"a payload of at most {MAX_MANIFEST_BYTES} bytes", "a longer one")
    for item in shape.signatures:
        _check_signature(item)
    if len({item.keyid for item in shape.signatures}) != len(shape.signatures):
        raise _malformed("every key id once", "one twice")
    return shape


def _check_signature(item: _SignatureJson) -> None:
    if not _KEY_ID.fullmatch(item.keyid):
        raise _malformed("key ids of 64 lower-case hex digits", shown(item.keyid))
    if not 1 <= len(_base64("sig", item.sig)) <= MAX_SIGNATURE_BYTES:
        raise _malformed(f"signatures of 1 to {MAX_SIGNATURE_BYTES} bytes", "another length")


def _base64(field: str, text: str) -> bytes:
    """Decode base64 that has exactly one spelling: padded, no white space, no stray bits."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(f"{field} in base64", str(error)) from error
    if base64.b64encode(data).decode() != text:
        raise _malformed(f"{field} in canonical base64", "another spelling of the same bytes")
    return data


def _malformed(expected: str, found: str) -> SignatureRefused:
    return SignatureRefused(
        f"MANIFEST.dsse: expected {expected}, found {found[:300]}",
        reason="ENVELOPE_MALFORMED",
        mend="Build the bundle with `superbrain bundle build`",
    )


def _not_trusted(claimed: Sequence[str], trust: Trust) -> SignatureRefused:
    trusted = {key.key_id for key in trust.keys} - trust.revoked_keys
    revoked = [key_id for key_id in claimed if key_id in trust.revoked_keys]
    known = sum(key_id in trusted for key_id in claimed)
    if revoked and known < trust.threshold:
        return SignatureRefused(
            f"MANIFEST.dsse: expected signatures of {trust.threshold} trusted keys, "
            f"found key {revoked[0][:12]}… which is revoked",
            reason="KEY_REVOKED",
            mend="Sign the release with a key that is still trusted",
        )
    return SignatureRefused(
        f"MANIFEST.dsse: expected valid signatures of {trust.threshold} of {len(trusted)} trusted "
        f"keys, found {len(claimed)} signatures, {known} of them in the name of a trusted key",
        reason="SIGNATURE_INVALID" if known >= trust.threshold else "SIGNATURE_UNTRUSTED",
        mend="Add the signer's .pub file to the trust folder, if you trust it"
        if known < trust.threshold
        else "The file was damaged or forged: copy it again from its author",
    )
