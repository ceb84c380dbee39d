"""Envelopes: who must have signed, and every way in which one is malformed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from superbrain.bundle import signing
from superbrain.bundle.keys import KeyKind
from superbrain.bundle.signing import (
    MAX_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    read_envelope,
    sign_payload,
    verify_envelope,
)
from superbrain.domain.errors import SignatureRefused, TrustUnusable
from superbrain.domain.trust import Trust
from tests.support.bundles import KeyPair, sign_key, trust_in

PAYLOAD = b'{"name": "x"}'
Json = dict[str, Any]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyPair, KeyPair, KeyPair]:
    folder = tmp_path_factory.mktemp("keys")
    return sign_key(folder, "a"), sign_key(folder, "b", "p256"), sign_key(folder, "c")


Keys = tuple[KeyPair, KeyPair, KeyPair]


def signed(*keys: KeyPair) -> bytes:
    return sign_payload(PAYLOAD, [key.signing for key in keys])


def refusal(data: bytes, trust: Trust) -> SignatureRefused:
    with pytest.raises(SignatureRefused) as caught:
        verify_envelope(data, trust)
    return caught.value


def changed(data: bytes, change: Callable[[Json], Any]) -> bytes:
    envelope = json.loads(data)
    change(envelope)
    return json.dumps(envelope).encode()


def flip_payload(envelope: Json) -> None:
    envelope["payload"] = base64.b64encode(b'{"name": "y"}').decode()


def flip_signature(envelope: Json) -> None:
    raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    raw[5] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_signed_payload_comes_back_with_its_signer(tmp_path: Path, kind: KeyKind) -> None:
    key = sign_key(tmp_path, kind=kind)
    result = verify_envelope(signed(key), trust_in(key))
    assert (result.payload, result.signers) == (PAYLOAD, (key.key_id,))


def test_the_order_of_keys_does_not_change_the_envelope(keys: Keys) -> None:
    assert signed(*keys) == signed(*reversed(keys))


def test_two_of_three_trusted_signers_meet_a_threshold_of_two(keys: Keys) -> None:
    a, b, c = keys
    result = verify_envelope(signed(a, b), trust_in(a, b, c, threshold=2))
    assert set(result.signers) == {a.key_id, b.key_id}


def test_one_signer_does_not_meet_a_threshold_of_two(keys: Keys) -> None:
    a, b, _ = keys
    assert refusal(signed(a), trust_in(a, b, threshold=2)).reason == "SIGNATURE_UNTRUSTED"


def test_a_stranger_beside_one_trusted_signer_does_not_count(keys: Keys) -> None:
    a, b, c = keys
    assert refusal(signed(a, c), trust_in(a, b, threshold=2)).reason == "SIGNATURE_UNTRUSTED"


def test_a_stranger_beside_a_trusted_signer_does_no_harm(keys: Keys) -> None:
    a, _, c = keys
    assert verify_envelope(signed(a, c), trust_in(a)).signers == (a.key_id,)


def test_an_unknown_key_is_refused(keys: Keys) -> None:
    a, b, _ = keys
    assert refusal(signed(a), trust_in(b)).reason == "SIGNATURE_UNTRUSTED"


def test_a_revoked_key_is_refused_by_its_name(keys: Keys) -> None:
    a, b, _ = keys
    trust = Trust((a.trusted, b.trusted), revoked_keys=frozenset({a.key_id}))
    assert refusal(signed(a), trust).reason == "KEY_REVOKED"


def test_empty_trust_refuses_a_good_signature(keys: Keys) -> None:
    with pytest.raises(TrustUnusable) as caught:
        verify_envelope(signed(keys[0]), Trust())
    assert caught.value.reason == "TRUST_EMPTY"


@pytest.mark.parametrize("change", [flip_payload, flip_signature])
def test_a_flipped_bit_is_refused(keys: Keys, change: Callable[[Json], Any]) -> None:
    data = changed(signed(keys[0]), change)
    assert refusal(data, trust_in(keys[0])).reason == "SIGNATURE_INVALID"


def test_a_signature_under_another_ones_name_is_refused(keys: Keys) -> None:
    a, _, c = keys
    data = signed(a).replace(a.key_id.encode(), c.key_id.encode())
    assert refusal(data, trust_in(a, c)).reason == "SIGNATURE_INVALID"


def test_a_signature_over_another_payload_type_is_refused(keys: Keys) -> None:
    envelope = Envelope(PAYLOAD, "application/vnd.in-toto+json", {})
    envelope.sign(keys[0].signing)
    data = json.dumps(envelope.to_dict()).encode()
    assert refusal(data, trust_in(keys[0])).reason == "ENVELOPE_MALFORMED"


def test_a_signature_of_another_payload_type_renamed_is_refused(keys: Keys) -> None:
    envelope = Envelope(PAYLOAD, "application/vnd.in-toto+json", {})
    envelope.sign(keys[0].signing)
    data = json.dumps({**envelope.to_dict(), "payloadType": PAYLOAD_TYPE}).encode()
    assert refusal(data, trust_in(keys[0])).reason == "SIGNATURE_INVALID"


def _first(envelope: Json) -> Json:
    first: Json = envelope["signatures"][0]
    return first


MALFORMED: dict[str, Callable[[Json], Any]] = {
    "no signatures": lambda e: e.update(signatures=[]),
    "signatures missing": lambda e: e.pop("signatures"),
    "payload missing": lambda e: e.pop("payload"),
    "type missing": lambda e: e.pop("payloadType"),
    "unknown field": lambda e: e.update(more=1),
    "unknown field of a signature": lambda e: _first(e).update(cert="x"),
    "one key twice": lambda e: e["signatures"].append(_first(e)),
    "too many signatures": lambda e: e.update(signatures=[_first(e)] * 33),
    "empty signature": lambda e: _first(e).update(sig=""),
    "signature of another type": lambda e: _first(e).update(sig=7),
    "huge signature": lambda e: _first(e).update(sig=base64.b64encode(bytes(2000)).decode()),
    "key id of another form": lambda e: _first(e).update(keyid="author"),
    "no base64": lambda e: e.update(payload="***"),
    "base64 with white space": lambda e: e.update(payload=e["payload"] + "\n"),
    "base64 without padding": lambda e: e.update(payload="YQ"),
    "base64 with stray bits": lambda e: e.update(payload="YR=="),
    "base64 for URLs": lambda e: e.update(payload="_-8="),
    "not ASCII": lambda e: e.update(payload="ä"),
    "signatures is no list": lambda e: e.update(signatures={"a": 1}),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_envelope_is_refused(keys: Keys, change: Callable[[Json], Any]) -> None:
    data = changed(signed(keys[0]), change)
    assert refusal(data, trust_in(keys[0])).reason == "ENVELOPE_MALFORMED"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[" * 50_000,
        b'{"payload": "", "payload": ""}',
        b" " * (MAX_ENVELOPE_BYTES + 1),
    ],
    ids=["nothing", "object", "list", "deep", "duplicate", "large"],
)
def test_what_is_no_envelope_is_refused(keys: Keys, data: bytes) -> None:
    assert refusal(data, trust_in(keys[0])).reason == "ENVELOPE_MALFORMED"


@pytest.mark.parametrize("failure", [MemoryError, RuntimeError, RecursionError])
def test_a_verifier_that_fails_fails_closed(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(signing, "verification_key", fail)
    assert refusal(signed(keys[0]), trust_in(keys[0])).reason == "SIGNATURE_INVALID"


def test_signing_with_no_key_is_refused() -> None:
    with pytest.raises(SignatureRefused):
        sign_payload(PAYLOAD, [])


def test_signing_twice_with_one_key_is_refused(keys: Keys) -> None:
    with pytest.raises(SignatureRefused):
        signed(keys[0], keys[0])


def test_reading_without_trust_gives_payload_and_claimed_signers(keys: Keys) -> None:
    result = read_envelope(signed(keys[0]))
    assert (result.payload, result.signers) == (PAYLOAD, (keys[0].key_id,))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(SignatureRefused):
        read_envelope(data)
