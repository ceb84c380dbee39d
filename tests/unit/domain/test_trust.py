"""Whom to believe, and what to refuse in spite of a good signature."""

from __future__ import annotations

import datetime as dt
from functools import partial

import msgspec
import pytest

from superbrain.domain.errors import (
    DateRefused,
    SequenceRefused,
    SignatureRefused,
    TrustUnusable,
)
from superbrain.domain.host_time import HostTime
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
    with pytest.raises(TrustUnusable, match="nothing can be verified") as caught:
        Trust().usable_keys()
    assert caught.value.reason == "TRUST_EMPTY"


def test_a_revoked_key_is_not_usable() -> None:
    trust = Trust((FIRST, SECOND), revoked_keys=frozenset({"aa"}))
    assert trust.usable_keys() == (SECOND,)


def test_one_key_given_twice_counts_once() -> None:
    with pytest.raises(TrustUnusable) as caught:
        Trust((FIRST, FIRST), threshold=2).usable_keys()
    assert caught.value.reason == "TRUST_THRESHOLD"


def test_a_threshold_of_zero_is_refused() -> None:
    with pytest.raises(TrustUnusable) as caught:
        Trust((FIRST,), threshold=0).usable_keys()
    assert caught.value.reason == "TRUST_THRESHOLD"


def test_a_revoked_bundle_is_refused() -> None:
    with pytest.raises(SignatureRefused) as caught:
        Trust((FIRST,), revoked_bundles=frozenset({"cc"})).check_not_revoked("cc")
    assert caught.value.reason == "BUNDLE_REVOKED"


def test_while_nothing_can_be_verified_nothing_is_accepted_and_nothing_begins() -> None:
    fault = TrustUnusable("the folder is open", reason="TRUST_WRITABLE", mend="chmod go-w")
    trust = Trust((FIRST,), fault=fault)
    begins = partial(trust.check_may_begin, "ocr", "1.0.0", 1, "cc", ["aa"])
    for judge in (trust.usable_keys, begins):
        with pytest.raises(TrustUnusable, match=": the folder is open") as caught:
            judge()
        assert (caught.value.reason, caught.value.mend) == ("TRUST_WRITABLE", "chmod go-w")
    trust.check_may_serve("ocr", "1.0.0", 1, "cc", ["aa"])  # what serves goes on


def test_what_is_revoked_does_not_begin() -> None:
    trust = Trust((FIRST,), revoked_bundles=frozenset({"cc"}))
    trust.check_may_begin("ocr", "1.0.0", 1, "dd", ["aa"])
    with pytest.raises(SignatureRefused):
        trust.check_may_begin("ocr", "1.0.0", 1, "cc", ["aa"])


def test_the_digest_is_the_sha256_of_the_signed_bytes() -> None:
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert bundle_digest(b"abc") == expected


def test_a_lower_sequence_is_refused() -> None:
    with pytest.raises(SequenceRefused, match="expected a sequence of 4 or above, found 3"):
        check_policy(manifest(sequence=3), "aa", 4, "bb", HostTime(NOW))


def test_the_same_sequence_with_another_digest_is_refused() -> None:
    with pytest.raises(SequenceRefused) as caught:
        check_policy(manifest(sequence=3), "aa", 3, "bb", HostTime(NOW))
    assert caught.value.reason == "SEQUENCE_REUSED"


def test_the_same_bundle_again_is_no_rollback() -> None:
    assert check_policy(manifest(sequence=3), "aa", 3, "aa", HostTime(NOW)) == ()


def test_the_first_release_has_no_floor() -> None:
    assert check_policy(manifest(), "aa", 0, "", HostTime(NOW)) == ()


def test_an_expired_bundle_is_refused() -> None:
    with pytest.raises(DateRefused) as caught:
        check_policy(manifest(expires=NOW), "aa", 0, "", HostTime(NOW))
    assert caught.value.reason == "EXPIRED"


def test_a_bundle_from_the_future_is_refused() -> None:
    with pytest.raises(DateRefused) as caught:
        check_policy(manifest(created=NOW + 2 * DAY), "aa", 0, "", HostTime(NOW))
    assert caught.value.reason == "CREATED_IN_FUTURE"


def test_a_clock_that_is_a_few_hours_slow_is_forgiven() -> None:
    assert check_policy(manifest(created=NOW + DAY / 2), "aa", 0, "", HostTime(NOW)) == ()


def test_a_clock_that_was_never_set_does_not_judge_dates_but_says_so() -> None:
    clock = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    (note,) = check_policy(manifest(), "aa", 0, "", HostTime(clock))
    assert "clock is not set" in note


def test_a_clock_that_was_never_set_still_judges_the_sequence() -> None:
    clock = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    with pytest.raises(SequenceRefused):
        check_policy(manifest(sequence=1), "aa", 2, "", HostTime(clock))


# --- a clock that is behind ------------------------------------------------------------------

BEHIND = HostTime(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), NOW)


def test_a_clock_that_is_behind_takes_what_was_made_since() -> None:
    (note,) = check_policy(manifest(created=NOW + 900 * DAY), "aa", 0, "", BEHIND)
    assert "clock is behind" in note


def test_a_clock_that_is_behind_refuses_what_had_expired_when_it_was_right() -> None:
    with pytest.raises(DateRefused) as caught:
        check_policy(manifest(expires=NOW - DAY), "aa", 0, "", BEHIND)
    assert caught.value.reason == "EXPIRED"


# --- years later -----------------------------------------------------------------------------


def test_a_key_rests_outside_its_validity_and_says_so() -> None:
    bounded = msgspec.structs.replace(FIRST, not_before=NOW, not_after=NOW + DAY)
    trust = Trust((bounded, SECOND))
    assert trust.at(HostTime(NOW)).usable_keys() == (bounded, SECOND)
    for then in (NOW - DAY, NOW + DAY):
        assert trust.at(HostTime(then)).usable_keys() == (SECOND,)


def test_no_key_rests_while_the_clock_is_not_set() -> None:
    bounded = msgspec.structs.replace(FIRST, not_before=NOW)
    unset = HostTime(dt.datetime(1970, 1, 1, tzinfo=dt.UTC))
    assert Trust((bounded,)).at(unset).usable_keys() == (bounded,)


def test_a_replaced_key_still_vouches_and_a_revoked_one_does_not() -> None:
    trust = Trust((SECOND,), revoked_keys=frozenset({"cc"}))
    trust.check_signers(["aa"])
    trust.check_signers(["aa", "cc"])
    with pytest.raises(SignatureRefused) as caught:
        trust.check_signers(["cc"])
    assert caught.value.reason == "KEY_REVOKED"


def test_a_version_below_the_security_floor_may_not_serve() -> None:
    trust = Trust((FIRST,), security_floors={"ocr": 3})
    trust.check_security_floor("ocr", "1.2.0", 3)
    trust.check_security_floor("other", "1.0.0", 1)
    with pytest.raises(SequenceRefused, match="expected a sequence of 3 or above") as caught:
        trust.check_security_floor("ocr", "1.1.0", 2)
    assert caught.value.reason == "BELOW_SECURITY_FLOOR"


def test_what_is_revoked_here_is_revoked_whatever_else_is_said() -> None:
    trust = Trust((FIRST,), revoked_bundles=frozenset({"cc"})).also_revoking({"aa"}, {"dd"}, {"dd"})
    assert trust.revoked_bundles == {"cc", "dd"}
    assert trust.stopped_bundles == {"dd"}
    with pytest.raises(TrustUnusable):
        trust.usable_keys()
