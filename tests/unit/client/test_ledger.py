"""Who waits for what: answers meet their requests, once, also over a lost connection."""

from __future__ import annotations

import math

import msgspec
import pytest

from superbrain.client import calls
from superbrain.client.ledger import Exchange, Ledger
from superbrain.wire.errors import NotFound, Unavailable
from superbrain.wire.messages import MAX_TIMEOUT_MS, encode_error


def exchange(deadline: float = math.inf) -> Exchange:
    return Exchange(calls.server_live(), deadline)


def live_reply(request_id: str) -> list[bytes]:
    return [b"SB1r", msgspec.json.encode({"live": True, "id": request_id})]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("a")


def test_requests_are_sent_in_the_order_they_came(ledger: Ledger) -> None:
    one, two = exchange(), exchange()
    ledger.add(one)
    ledger.add(two)
    assert [ledger.next_to_send(), ledger.next_to_send(), ledger.next_to_send()] == [one, two, None]
    assert (one.id, two.id, len(ledger), ledger.unsent) == ("a-1", "a-2", 2, 0)


def test_an_answer_settles_the_request_of_its_id(ledger: Ledger) -> None:
    one, two = exchange(), exchange()
    ledger.add(one)
    ledger.add(two)
    assert ledger.settle(live_reply(two.id)) is two
    assert two.settled
    assert two.outcome().live
    assert not one.settled


def test_a_second_answer_to_the_same_request_is_dropped(ledger: Ledger) -> None:
    one = exchange()
    ledger.add(one)
    ledger.settle(live_reply(one.id))
    assert ledger.settle(live_reply(one.id)) is None


def test_an_error_reply_becomes_the_typed_error(ledger: Ledger) -> None:
    one = exchange()
    ledger.add(one)
    error = encode_error(NotFound("no model 'm'", mend="drop a bundle"), one.id)
    assert ledger.settle([b"SB1e", error]) is one
    with pytest.raises(NotFound, match=r"no model 'm'\. drop a bundle"):
        one.outcome()


def test_after_a_lost_connection_everything_unanswered_is_sent_again(ledger: Ledger) -> None:
    answered, sent, unsent = exchange(), exchange(), exchange()
    for each in (answered, sent, unsent):
        ledger.add(each)
    ledger.next_to_send()
    ledger.next_to_send()
    ledger.settle(live_reply(answered.id))
    ledger.lost()
    assert [ledger.next_to_send(), ledger.next_to_send(), ledger.next_to_send()] == [
        sent,
        unsent,
        None,
    ]


def test_an_answer_to_a_request_waiting_to_be_sent_again_spares_the_sending(
    ledger: Ledger,
) -> None:
    one = exchange()
    ledger.add(one)
    ledger.next_to_send()
    ledger.lost()
    ledger.settle(live_reply(one.id))
    assert ledger.next_to_send() is None


def test_a_forgotten_request_is_neither_sent_nor_answered(ledger: Ledger) -> None:
    one = exchange()
    ledger.add(one)
    ledger.forget(one)
    assert ledger.next_to_send() is None
    assert ledger.settle(live_reply(one.id)) is None
    assert len(ledger) == 0


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"HTTP"],
        [b"SB1r"],
        [b"SB1x", b"{}"],
        [b"SB1r", b"no json"],
        [b"SB1r", b"{}"],
        [b"SB1e", b'{"id":"a-1"}'],
    ],
)
def test_what_is_no_reply_is_ignored_and_loses_nobody(ledger: Ledger, frames: list[bytes]) -> None:
    one = exchange()
    ledger.add(one)
    assert ledger.settle(frames) is None
    assert ledger.settle(live_reply(one.id)) is one


def test_fail_all_ends_everything_with_the_error(ledger: Ledger) -> None:
    one, two = exchange(), exchange()
    ledger.add(one)
    ledger.add(two)
    ledger.next_to_send()
    assert ledger.fail_all(Unavailable("gone")) == [one, two]
    assert (len(ledger), ledger.unsent) == (0, 0)
    with pytest.raises(Unavailable, match="gone"):
        two.outcome()


@pytest.mark.parametrize(
    ("deadline", "now", "timeout_ms"),
    [
        (12.5, 10.0, 2500),
        (10.0001, 10.0, 1),
        (9.0, 10.0, 1),
        (math.inf, 10.0, 0),
        (1e9, 0.0, MAX_TIMEOUT_MS),
    ],
)
def test_the_time_left_travels_with_the_request(
    deadline: float, now: float, timeout_ms: int
) -> None:
    one = Exchange(calls.infer("m", {}), deadline)
    header = msgspec.json.decode(one.frames(now)[1])
    assert header["parameters"].get("timeout_ms", 0) == timeout_ms
