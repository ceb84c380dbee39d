"""Trust updates: what may be written in one, and which follows which."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.errors import UpdateRefused
from superbrain.domain.trust import Trust
from superbrain.domain.trust_update import (
    Standing,
    TrustUpdate,
    check_position,
    encode_update,
    in_line,
    parse_update,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64
AT = "2025-03-01T00:00:00Z"
GOOD: dict[str, Any] = {
    "schema": 1,
    "sequence": 2,
    "created": AT,
    "keys": [{"id": A, "pem": "p", "who": "Anna"}, {"id": B, "pem": "q"}],
    "threshold": 2,
    "expires": "2025-09-01T00:00:00Z",
    "revoked_keys": [C],
    "revoked_bundles": [{"digest": A, "stop": True}, {"digest": B}],
    "security_floors": {"ocr": 31},
    "note": "Anna's notebook was stolen",
}


def parse(**changes: object) -> TrustUpdate:
    return parse_update(json.dumps(GOOD | changes).encode())


def test_what_it_says_is_the_trust_that_counts() -> None:
    trust = parse().trust()
    assert [key.key_id for key in trust.keys] == [A, B]
    assert trust.threshold == 2
    assert trust.revoked_keys == {C}
    assert trust.revoked_bundles == {A, B}
    assert trust.stopped_bundles == {A}
    assert trust.security_floors == {"ocr": 31}


def test_it_is_written_as_it_is_read() -> None:
    assert parse_update(encode_update(parse())) == parse()


KEY = {"id": A, "pem": "p"}
BAD: dict[str, dict[str, object]] = {
    "an unknown schema": {"schema": 2},
    "a schema that is no number": {"schema": True},
    "an unknown field": {"trust": "me"},
    "sequence 0": {"sequence": 0},
    "half a sequence": {"sequence": 1.5},
    "a huge sequence": {"sequence": 10**9},
    "no keys": {"keys": []},
    "too many keys": {"keys": [{"id": f"{n:064x}", "pem": "p"} for n in range(33)]},
    "one key twice": {"keys": [KEY, KEY]},
    "a short key id": {"keys": [{"id": "aa", "pem": "p"}], "threshold": 1},
    "threshold 0": {"threshold": 0},
    "a threshold above the keys": {"threshold": 3},
    "a key that is revoked too": {"revoked_keys": [A]},
    "a revoked key twice": {"revoked_keys": [C, C]},
    "a digest in capitals": {"revoked_bundles": [{"digest": "A" * 64}]},
    "a floor of 0": {"security_floors": {"ocr": 0}},
    "a floor for no name": {"security_floors": {"../x": 1}},
    "a time without zone": {"created": "2025-03-01T00:00:00"},
    "expired when made": {"expires": AT},
    "valid until before it begins": {
        "keys": [KEY | {"not_before": AT, "not_after": AT}],
        "threshold": 1,
    },
    "control characters": {"note": "\x1b[2J"},
    "a novel": {"note": "x" * 501},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_a_bad_one_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UpdateRefused) as caught:
        parse(**changes)
    assert caught.value.reason == "UPDATE_MALFORMED"


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b" " * (1 << 19)]
)
def test_what_is_no_update_is_refused(payload: bytes) -> None:
    with pytest.raises(UpdateRefused):
        parse_update(payload)


def test_a_field_given_twice_is_refused() -> None:
    text = json.dumps(GOOD).replace('"threshold": 2', '"threshold": 2, "threshold": 1')
    with pytest.raises(UpdateRefused, match="twice"):
        parse_update(text.encode())


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner, max_size=8)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_is_signed_it_is_read_or_refused(payload: bytes) -> None:
    try:
        parse_update(payload)
    except UpdateRefused:
        return


# --- which follows which --------------------------------------------------------------------------


STANDING = Standing(Trust(), 5, A)


@pytest.mark.parametrize(
    ("sequence", "digest", "reason"),
    [
        (1, B, "UPDATE_SEQUENCE_OLD"),
        (4, A, "UPDATE_SEQUENCE_OLD"),
        (5, B, "UPDATE_SEQUENCE_REUSED"),
    ],
)
def test_an_old_one_does_not_come_back(sequence: int, digest: str, reason: str) -> None:
    with pytest.raises(UpdateRefused) as caught:
        check_position(STANDING, sequence, digest)
    assert caught.value.reason == reason


def test_what_is_ahead_or_the_same_is_not_in_the_way() -> None:
    check_position(STANDING, 5, A)
    check_position(STANDING, 6, B)


@given(st.integers(0, 5), st.lists(st.integers(0, 12)))
def test_a_line_has_no_gap_and_does_not_depend_on_the_order(start: int, numbers: list[int]) -> None:
    line = in_line(start, [(number, number) for number in numbers])
    found = [number for number, _ in line]
    assert found == list(range(start + 1, start + 1 + len(found)))
    assert start + 1 + len(found) not in numbers
    for other in (sorted(numbers), numbers[::-1]):
        assert [n for n, _ in in_line(start, [(n, n) for n in other])] == found
