"""Who is picked, how many failures are told, and that what waits to be told has a bound."""

from __future__ import annotations

import itertools
import random
import threading

import pytest

from superbrain.domain.records import RequestRecord
from superbrain.serve.record_keeping import TOLD_TOGETHER, FailureRate, Picks, RecordBuffer

RECORD = RequestRecord(1, 2, "a-1", "adder", "worker", "lane")
SECOND_NS = 1_000_000_000


def draws(seed: int = 1) -> random.Random:
    return random.Random(seed)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.001])
def test_as_many_are_picked_as_the_share_says(share: float) -> None:
    picks = Picks(share, 0.0, draws().random)
    rounds = int(2000 / share)
    found = sum(picks.passed()[0] for _ in range(rounds))
    assert 1800 < found < 2200


def test_the_two_shares_are_picked_independently() -> None:
    picks = Picks(0.2, 0.05, draws().random)
    hits = [picks.passed() for _ in range(40_000)]
    logged, traced = sum(log for log, _ in hits), sum(trace for _, trace in hits)
    both = sum(log and trace for log, trace in hits)
    assert 7_500 < logged < 8_500
    assert 1_750 < traced < 2_250
    assert 250 < both < 550  # a hundredth of all, not a fifth of the traced or none


def test_all_or_none_are_picked_if_that_is_the_share() -> None:
    assert all(Picks(1.0, 1.0, draws().random).passed() == (True, True) for _ in range(3))
    picks = Picks(0.0, 0.0, draws().random)
    assert not any(any(picks.passed()) for _ in range(1000))


def test_gaps_differ_so_that_no_rhythm_of_a_caller_meets_them() -> None:
    picks = Picks(0.1, 0.0, draws().random)
    hits = [number for number in range(5000) if picks.passed()[0]]
    gaps = {after - before for before, after in itertools.pairwise(hits)}
    assert len(gaps) > 10


def test_who_counts_by_himself_meets_the_pick_at_one() -> None:
    """The compiled loop's requests are counted by `left`, and the one that is due is not."""
    picks = Picks(0.1, 0.0, draws().random)
    for _ in range(100):
        while picks.left > 1:
            picks.left -= 1
        assert picks.passed()[0]


def test_failures_are_told_up_to_their_rate() -> None:
    rate = FailureRate(10)
    assert sum(rate.allows(SECOND_NS) for _ in range(100)) == 10
    assert sum(rate.allows(SECOND_NS + SECOND_NS // 2) for _ in range(100)) == 5
    assert sum(rate.allows(60 * SECOND_NS) for _ in range(100)) == 10
    assert not FailureRate(0).allows(SECOND_NS)


def test_a_rate_below_one_a_second_tells_one_now_and_then() -> None:
    rate = FailureRate(0.1)
    assert [rate.allows(second * SECOND_NS) for second in (1, 2, 5, 12, 13)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_what_has_no_room_is_left_out_and_counted_once() -> None:
    buffer = RecordBuffer()
    for _ in range(2050):
        buffer.add(RECORD)
    told = list(buffer.take())
    assert sum(len(message.records) for message in told) == 2048
    assert sum(message.left_out for message in told) == 2
    assert max(len(message.records) for message in told) == TOLD_TOGETHER
    assert list(buffer.take()) == []


def test_payloads_are_bounded_by_their_bytes_and_room_comes_back() -> None:
    buffer = RecordBuffer()
    for _ in range(2):
        for _ in range(10):
            buffer.add(RECORD, 1 << 20)
        told = list(buffer.take())
        assert sum(len(message.records) for message in told) == 7
        assert sum(message.left_out for message in told) == 3
        assert all(len(message.records) == 1 for message in told)


def test_those_left_out_are_told_of_without_any_record() -> None:
    buffer = RecordBuffer()
    buffer.leave_out()
    assert [(message.records, message.left_out) for message in buffer.take()] == [([], 1)]


def test_several_may_take_while_one_adds() -> None:
    buffer = RecordBuffer()
    found: list[int] = []
    done = threading.Event()

    def take() -> None:
        while not done.is_set() or len(buffer):
            found.extend(len(message.records) for message in buffer.take())

    takers = [threading.Thread(target=take) for _ in range(2)]
    for taker in takers:
        taker.start()
    added = 0
    for _ in range(20_000):
        if len(buffer) < 2000:
            buffer.add(RECORD)
            added += 1
    done.set()
    for taker in takers:
        taker.join()
    assert sum(found) == added
