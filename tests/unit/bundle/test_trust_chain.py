"""The chain of trust updates: who must have signed a link, and what the disk may say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from superbrain.bundle.signing import TRUST_UPDATE, add_signatures, sign_payload, verify_envelope
from superbrain.bundle.trust_chain import TrustChain, anchor_name, follow, read_update
from superbrain.domain.errors import (
    BundleError,
    SignatureRefused,
    UpdateRefused,
)
from superbrain.domain.trust_update import Standing, encode_update
from tests.support.bundles import KeyPair, sign_key, trust_in
from tests.support.trust import key_of, make_update, update_of

Keys = tuple[KeyPair, KeyPair, KeyPair, KeyPair]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    a, b, c = (sign_key(folder, name) for name in "abc")
    return a, b, c, sign_key(folder, "d", "p256")


def refusal(standing: Standing, data: bytes, **options: Any) -> UpdateRefused:  # noqa: ANN401
    with pytest.raises(UpdateRefused) as caught:
        follow(standing, read_update(data), **options)
    return caught.value


def test_a_link_is_signed_by_enough_old_and_enough_new_keys(keys: Keys) -> None:
    a, b, c, d = keys
    standing = Standing(trust_in(a, b, threshold=2))
    data = make_update(1, [b, c, d], signed_by=[a, b, d], threshold=2)
    followed = follow(standing, read_update(data))
    assert followed.standing.sequence == 1
    assert {key.key_id for key in followed.standing.trust.keys} == {b.key_id, c.key_id, d.key_id}
    assert set(followed.signers) == {a.key_id, b.key_id, d.key_id}


# Of keys a b c d by number: who signs, and what is missing. Old: a, b; new: c, d; 2 of 2 each.
SIGNERS: dict[str, tuple[str, str]] = {
    "only old": ("ab", "UPDATE_NEW_KEYS"),
    "only new": ("cd", "UPDATE_OLD_KEYS"),
    "one old, all new": ("acd", "UPDATE_OLD_KEYS"),
    "all old, one new": ("abc", "UPDATE_NEW_KEYS"),
    "nobody of either": ("e", "UPDATE_OLD_KEYS"),
}


@pytest.mark.parametrize(("who", "reason"), SIGNERS.values(), ids=SIGNERS.keys())
def test_wrong_signers_are_refused(keys: Keys, tmp_path: Path, who: str, reason: str) -> None:
    a, b, c, d = keys
    named = {"a": a, "b": b, "c": c, "d": d, "e": sign_key(tmp_path, "e")}
    signers = [named[letter] for letter in who]
    data = make_update(1, [c, d], signed_by=signers, threshold=2)
    error = refusal(Standing(trust_in(a, b, threshold=2)), data)
    assert error.reason == reason
    assert "expected valid signatures of 2 of the 2 keys" in error.message


def test_a_key_revoked_on_this_host_does_not_count_as_an_old_one(keys: Keys) -> None:
    a, b, _, _ = keys
    standing = Standing(trust_in(a, b))
    data = make_update(1, [a], signed_by=[a])
    old = standing.trust.also_revoking({a.key_id}, ())
    assert refusal(standing, data, old=old).reason == "UPDATE_OLD_KEYS"


def test_a_link_of_another_number_does_not_follow(keys: Keys) -> None:
    a = keys[0]
    data = make_update(3, [a], signed_by=[a])
    assert refusal(Standing(trust_in(a), 1), data).reason == "UPDATE_SEQUENCE_GAP"


def test_a_changed_payload_is_refused(keys: Keys) -> None:
    a = keys[0]
    data = make_update(1, [a], signed_by=[a])
    other = make_update(1, [a], signed_by=[a], note="other")
    mixed = msgspec.json.encode(
        msgspec.json.decode(data) | {"payload": msgspec.json.decode(other)["payload"]}
    )
    assert "not all of them valid" in refusal(Standing(trust_in(a)), mixed).message


def test_a_manifest_is_no_trust_update_and_an_update_no_manifest(keys: Keys) -> None:
    a = keys[0]
    update = make_update(1, [a], signed_by=[a])
    with pytest.raises(SignatureRefused, match="payloadType"):
        verify_envelope(update, trust_in(a))
    with pytest.raises(SignatureRefused, match="payloadType"):
        read_update(sign_payload(encode_update(update_of(1, [a])), [a.signing]))


def test_an_id_beside_another_key_is_refused(keys: Keys) -> None:
    a, b, _, _ = keys
    wrong = msgspec.structs.replace(key_of(a), pem=key_of(b).pem)
    update = msgspec.structs.replace(update_of(1, [a]), keys=[wrong])
    data = sign_payload(encode_update(update), [a.signing], TRUST_UPDATE)
    with pytest.raises(UpdateRefused, match="of one key"):
        read_update(data)


def test_a_signature_is_added_and_those_there_stay(keys: Keys) -> None:
    a, b, _, _ = keys
    one = make_update(1, [a, b], signed_by=[a], threshold=2)
    both = add_signatures(one, [b.signing], TRUST_UPDATE)
    assert set(read_update(both).claimed) == {a.key_id, b.key_id}
    assert read_update(both).digest == read_update(one).digest
    follow(Standing(trust_in(a, b, threshold=2)), read_update(both))
    with pytest.raises(SignatureRefused) as caught:
        add_signatures(both, [b.signing], TRUST_UPDATE)
    assert caught.value.reason == "KEY_SIGNED_ALREADY"


# --- on the disk ----------------------------------------------------------------------------------


def chain_of_two(keys: Keys, root: Path) -> TrustChain:
    a, b, c, _ = keys
    chain = TrustChain(root, trust_in(a))
    chain.append(read_update(make_update(1, [b], signed_by=[a, b])))
    chain.append(read_update(make_update(2, [c], signed_by=[b, c])))
    return chain


def walked(chain: TrustChain) -> list[int]:
    return [followed.standing.sequence for _, followed in chain.walk()]


def test_the_chain_is_read_from_the_anchor_on(keys: Keys, tmp_path: Path) -> None:
    chain = chain_of_two(keys, tmp_path)
    assert walked(TrustChain(tmp_path, chain.anchor)) == [1, 2]


def test_another_anchor_begins_another_chain(keys: Keys, tmp_path: Path) -> None:
    a, b, _, _ = keys
    chain_of_two(keys, tmp_path)
    assert walked(TrustChain(tmp_path, trust_in(a, b))) == []
    assert walked(TrustChain(tmp_path, trust_in(a))) == [1, 2]


def test_the_anchor_is_named_by_keys_and_threshold_alone(keys: Keys) -> None:
    a, b, _, _ = keys
    assert anchor_name(trust_in(a, b)) == anchor_name(trust_in(b, a))
    assert anchor_name(trust_in(a, b)) != anchor_name(trust_in(a, b, threshold=2))
    assert anchor_name(trust_in(a)) != anchor_name(trust_in(b))


@pytest.mark.parametrize("harm", ["another signer", "damaged", "a link", "a pipe"])
def test_what_was_changed_on_the_disk_breaks_the_chain_there(
    keys: Keys, tmp_path: Path, harm: str
) -> None:
    chain = chain_of_two(keys, tmp_path / "chains")
    path = chain.path(2)
    data = path.read_bytes()
    path.unlink()
    if harm == "another signer":
        path.write_bytes(make_update(2, [keys[3]], signed_by=[keys[3]]))
    elif harm == "damaged":
        path.write_bytes(data[:100])
    elif harm == "a link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    walk = chain.walk()
    assert next(walk)[1].standing.sequence == 1
    with pytest.raises(BundleError):
        next(walk)


def test_a_half_written_file_of_a_kill_is_no_link(keys: Keys, tmp_path: Path) -> None:
    chain = chain_of_two(keys, tmp_path)
    third = make_update(3, [keys[0]], signed_by=[keys[2], keys[0]])
    chain.path(3).with_suffix(".part").write_bytes(third[:200])
    assert walked(chain) == [1, 2]
    chain.append(read_update(third))
    assert walked(chain) == [1, 2, 3]
    assert not list(tmp_path.rglob("*.part"))
