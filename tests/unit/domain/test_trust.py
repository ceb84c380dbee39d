"""Whom to believe, and what to refuse in spite of a good signature."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from superbrain.domain.errors import DateRefused, SequenceRefused, SignatureRefused
from superbrain.domain.manifest import Manifest
from superbrain.domain.manifest_json import parse_manifest
from superbrain.domain.trust import PublicKey, Trust, bundle_digest, check_policy
from tests.support.manifests import payload

NOW = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
FIRST, SECOND = PublicKey("aa", b""), PublicKey("bb", b"")
DAY = dt.timedelta(days=1)


def manifest(**changes: object) -> Manifest:
    return msgspec.structs.replace(parse_manifest(payload()), **changes)


def test_empty_trust_says_that_nothing_can_be_verified() -> None:
    with pytest.raises(SignatureRefused, match="nothing can be verified") as caught:
        Trust().usable_keys()
    assert caught.value.reason == "TRUST_EMPTY"


def test_a_revoked_key_is_not_usable() -> None:
    trust = Trust((FIRST, SECOND), revoked_keys=frozenset({"aa"}))
    assert trust.usable_keys() == (SECOND,)


def test_one_key_given_twice_counts_once() -> None:
    with pytest.raises(SignatureRefused) as caught:
        Trust((FIRST, FIRST), threshold=2).usable_keys()
    assert caught.value.reason == "TRUST_THRESHOLD"


def test_a_threshold_of_zero_is_refused() -> None:
    with pytest.raises(SignatureRefused) as caught:
        Trust((FIRST,), threshold=0).usable_keys()
    assert caught.value.reason == "TRUST_THRESHOLD"


def test_a_revoked_bundle_is_refused() -> None:
    with pytest.raises(SignatureRefused) as caught:
        Trust((FIRST,), revoked_bundles=frozenset({"cc"})).check_not_revoked("cc")
    assert caught.value.reason == "BUNDLE_REVOKED"


def test_the_digest_is_the_sha256_of_the_signed_bytes() -> None:
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert bundle_digest(b"abc") == expected


def test_a_lower_sequence_is_refused() -> None:
    with pytest.raises(SequenceRefused, match="expected a sequence of 4 or above, found 3"):
        check_policy(manifest(sequence=3), "aa", 4, "bb", NOW)


def test_the_same_sequence_with_another_digest_is_refused() -> None:
    with pytest.raises(SequenceRefused) as caught:
        check_policy(manifest(sequence=3), "aa", 3, "bb", NOW)
    assert caught.value.reason == "SEQUENCE_REUSED"


def test_the_same_bundle_again_is_no_rollback() -> None:
    assert check_policy(manifest(sequence=3), "aa", 3, "aa", NOW) == ()


def test_the_first_release_has_no_floor() -> None:
    assert check_policy(manifest(), "aa", 0, "", NOW) == ()


def test_an_expired_bundle_is_refused() -> None:
    with pytest.raises(DateRefused) as caught:
        check_policy(manifest(expires=NOW), "aa", 0, "", NOW)
    assert caught.value.reason == "EXPIRED"


def test_a_bundle_from_the_future_is_refused() -> None:
    with pytest.raises(DateRefused) as caught:
        check_policy(manifest(created=NOW + 2 * DAY), "aa", 0, "", NOW)
    assert caught.value.reason == "CREATED_IN_FUTURE"


def test_a_clock_that_is_a_few_hours_slow_is_forgiven() -> None:
    assert check_policy(manifest(created=NOW + DAY / 2), "aa", 0, "", NOW) == ()


def test_a_clock_that_was_never_set_does_not_judge_dates_but_says_so() -> None:
    clock = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    (note,) = check_policy(manifest(), "aa", 0, "", clock)
    assert "clock is not set" in note


def test_a_clock_that_was_never_set_still_judges_the_sequence() -> None:
    clock = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    with pytest.raises(SequenceRefused):
        check_policy(manifest(sequence=1), "aa", 2, "", clock)
