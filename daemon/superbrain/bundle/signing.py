"""Signatures over manifests and trust updates: making and verifying DSSE envelopes.

An envelope is JSON: the payload in base64, its type, and signatures over both (the "PAE" of
https://github.com/secure-systems-lab/dsse). The signatures are checked by securesystemslib; its
shape is checked here beforehand, because that library ignores what it does not know.

What is signed is of a `Kind`, whose payload type is part of what is signed: a manifest can never be
taken for a trust update, nor the other way round.

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
from superbrain.domain.trust_update import MAX_UPDATE_BYTES

PAYLOAD_TYPE = "application/vnd.superbrain.manifest.v1+json"
TRUST_PAYLOAD_TYPE = "application/vnd.superbrain.trust.v1+json"
MAX_ENVELOPE_BYTES = MAX_MANIFEST_BYTES * 3 // 2
MAX_SIGNATURES = 32
MAX_SIGNATURE_BYTES = 1024
_KEY_ID = re.compile(r"[0-9a-f]{64}")


class Kind(msgspec.Struct, frozen=True):
    """What may be signed: its payload type, how long it may be, and what messages call it."""

    payload_type: str
    max_bytes: int
    called: str
    mend: str

    @property
    def max_envelope_bytes(self) -> int:
        """How long the envelope may be: base64 and some signatures more."""
        return self.max_bytes * 3 // 2


MANIFEST = Kind(
    PAYLOAD_TYPE,
    MAX_MANIFEST_BYTES,
    "MANIFEST.dsse",
    "Build the bundle with `superbrain bundle build`",
)
TRUST_UPDATE = Kind(
    TRUST_PAYLOAD_TYPE,
    MAX_UPDATE_BYTES,
    "trust update",
    "Make it with `superbrain trust create`",
)


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


def sign_payload(payload: bytes, keys: Sequence[SigningKey], kind: Kind = MANIFEST) -> bytes:
    """Sign a payload with every key: the bytes of the envelope, the same for the same input.

    Raises:
        SignatureRefused: no key is given, or one is given twice.
    """
    return _sign(Envelope(payload, kind.payload_type, {}), keys)


def add_signatures(data: bytes, keys: Sequence[SigningKey], kind: Kind = MANIFEST) -> bytes:
    """Sign what an envelope holds with more keys; the signatures there are stay as they are.

    Raises:
        SignatureRefused: the envelope is malformed, or no key is given, or one has signed already.
    """
    shape = _decode(data, kind)
    there = {item.keyid for item in shape.signatures}
    twice = [key.key_id for key in keys if key.key_id in there]
    if twice:
        raise SignatureRefused(
            f"{kind.called}: expected a key that has not signed it yet, found {twice[0][:12]}…",
            reason="KEY_SIGNED_ALREADY",
        )
    return _sign(Envelope.from_dict(msgspec.to_builtins(shape)), keys)


def _sign(envelope: Envelope, keys: Sequence[SigningKey]) -> bytes:
    if not keys or len({key.key_id for key in keys}) != len(keys):
        raise SignatureRefused(
            f"expected one or more different keys to sign with, found {len(keys)}",
            reason="KEY_NONE",
            mend="Name each private key once: --key FILE",
        )
    for key in sorted(keys, key=lambda key: key.key_id):
        envelope.sign(key)
    return msgspec.json.encode(envelope.to_dict(), order="sorted")


def read_envelope(data: bytes, kind: Kind = MANIFEST) -> SignedPayload:
    """Check an envelope's shape and give its payload, *unverified*.

    Raises:
        SignatureRefused: not exactly the shape that docs/bundle-format.md describes.
    """
    shape = _decode(data, kind)
    return SignedPayload(
        _base64("payload", shape.payload, kind), tuple(item.keyid for item in shape.signatures)
    )


def verify_envelope(data: bytes, trust: Trust, kind: Kind = MANIFEST) -> SignedPayload:
    """Verify an envelope: `trust.threshold` different trusted keys must have signed it.

    Raises:
        TrustUnusable: there are no keys to verify with.
        SignatureRefused: the envelope is malformed or not signed by enough trusted keys.
    """
    keys = trust.usable_keys()
    shape = _decode(data, kind)
    try:
        envelope = Envelope.from_dict(msgspec.to_builtins(shape))
        accepted = envelope.verify([verification_key(key) for key in keys], trust.threshold)
    except Exception as error:  # whatever the libraries meet, nothing is accepted
        claimed = [item.keyid for item in shape.signatures]
        raise _not_trusted(claimed, trust, kind) from error
    return SignedPayload(envelope.payload, tuple(sorted(accepted)))


def _decode(data: bytes, kind: Kind) -> _EnvelopeJson:
    if len(data) > kind.max_envelope_bytes:
        raise _malformed(kind, f"at most {kind.max_envelope_bytes} bytes", f"{len(data)}")
    try:
        shape = msgspec.convert(strict_loads(data), _EnvelopeJson)
    except (NotJson, msgspec.ValidationError) as error:
        expected = "the fields payload, payloadType and signatures"
        raise _malformed(kind, expected, str(error)) from error
    if shape.payloadType != kind.payload_type:
        raise _malformed(kind, f"payloadType {kind.payload_type}", shown(shape.payloadType))
    if not 1 <= len(shape.signatures) <= MAX_SIGNATURES:
        found = f"{len(shape.signatures)}"
        raise _malformed(kind, f"1 to {MAX_SIGNATURES} signatures", found)
    if len(_base64("payload", shape.payload, kind)) > kind.max_bytes:
        raise _malformed(kind, f"a payload of at most {kind.max_bytes} bytes", "a longer one")
    for item in shape.signatures:
        _check_signature(item, kind)
    if len({item.keyid for item in shape.signatures}) != len(shape.signatures):
        raise _malformed(kind, "every key id once", "one twice")
    return shape


def _check_signature(item: _SignatureJson, kind: Kind) -> None:
    if not _KEY_ID.fullmatch(item.keyid):
        raise _malformed(kind, "key ids of 64 lower-case hex digits", shown(item.keyid))
    if not 1 <= len(_base64("sig", item.sig, kind)) <= MAX_SIGNATURE_BYTES:
        expected = f"signatures of 1 to {MAX_SIGNATURE_BYTES} bytes"
        raise _malformed(kind, expected, "another length")


def _base64(field: str, text: str, kind: Kind) -> bytes:
    """Decode base64 that has exactly one spelling: padded, no white space, no stray bits."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(kind, f"{field} in base64", str(error)) from error
    if base64.b64encode(data).decode() != text:
        expected = f"{field} in canonical base64"
        raise _malformed(kind, expected, "another spelling of the same bytes")
    return data


def _malformed(kind: Kind, expected: str, found: str) -> SignatureRefused:
    return SignatureRefused(
        f"{kind.called}: expected {expected}, found {found[:300]}",
        reason="ENVELOPE_MALFORMED",
        mend=kind.mend,
    )


def _not_trusted(claimed: Sequence[str], trust: Trust, kind: Kind) -> SignatureRefused:
    trusted = {key.key_id for key in trust.keys} - trust.revoked_keys - trust.resting_keys
    known = sum(key_id in trusted for key_id in claimed)
    for unusable, reason, found in (
        (trust.revoked_keys, "KEY_REVOKED", "which is revoked"),
        (trust.resting_keys, "KEY_NOT_VALID_NOW", "which is not valid at this time"),
    ):
        met = [key_id for key_id in claimed if key_id in unusable]
        if met and known < trust.threshold:
            return SignatureRefused(
                f"{kind.called}: expected signatures of {trust.threshold} trusted keys, "
                f"found key {met[0][:12]}… {found}",
                reason=reason,
                mend="Sign it with a key that is still trusted",
            )
    return SignatureRefused(
        f"{kind.called}: expected valid signatures of {trust.threshold} of {len(trusted)} trusted "
        f"keys, found {len(claimed)} signatures, {known} of them in the name of a trusted key",
        reason="SIGNATURE_INVALID" if known >= trust.threshold else "SIGNATURE_UNTRUSTED",
        mend="Trust the signer's key first (docs/trust.md), if you do"
        if known < trust.threshold
        else "The file was damaged or forged: copy it again from its author",
    )
