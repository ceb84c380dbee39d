"""The bounded queue: order, bound and deadlines, with a clock that the test holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.serve.admission import NEVER_NS, AdmissionQueue
from superbrain.wire.errors import ResourceExhausted


def test_higher_priority_goes_first_and_equals_in_order_of_arrival() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(4)
    for arrival, (item, priority) in enumerate([("a", 0), ("b", 5), ("c", 0), ("d", 5)]):
        queue.push(item, arrival=arrival, priority=priority)
    assert [queue.take() for _ in range(4)] == ["b", "d", "a", "c"]


def test_a_full_queue_refuses_and_says_how_many_wait() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(1)
    queue.push("a", arrival=0)
    with pytest.raises(ResourceExhausted, match="at most 1 waiting"):
        queue.push("b", arrival=1)
    assert len(queue) == 1


def test_what_is_put_back_is_never_refused_and_takes_its_old_place() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(1)
    queue.push("later", arrival=7)
    queue.put_back("earlier", arrival=3)
    assert queue.clear() == ["earlier", "later"]


def test_what_is_withdrawn_leaves_its_place_and_the_rest_in_order() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(3)
    for arrival, item in enumerate(["a1", "b1", "a2"]):
        queue.push(item, arrival=arrival, deadline_ns=10 + arrival)
    assert queue.withdraw(lambda item: item == "nobody") == []
    assert queue.withdraw(lambda item: item.startswith("a")) == ["a1", "a2"]
    assert queue.earliest_deadline_ns == 11
    queue.push("c1", arrival=3)
    assert queue.clear() == ["b1", "c1"]


def test_the_expired_are_taken_out_and_the_rest_stays() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(9)
    queue.push("late", arrival=0, deadline_ns=10)
    queue.push("never", arrival=1)
    queue.push("good", arrival=2, deadline_ns=30)
    assert queue.expired(9) == []
    assert queue.expired(10) == ["late"]
    assert queue.earliest_deadline_ns == 30
    assert queue.clear() == ["never", "good"]


def test_an_empty_queue_expires_never() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue(1)
    queue.push("a", arrival=0, deadline_ns=5)
    assert queue.first() == "a"
    queue.take()
    assert queue.first() is None
    assert queue.earliest_deadline_ns == NEVER_NS


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=30), st.integers(0, 60))
def test_nothing_is_lost_or_doubled_and_take_never_gives_an_expired_one(
    requests: list[tuple[int, int]], now_ns: int
) -> None:
    queue: AdmissionQueue[int] = AdmissionQueue(100)
    for arrival, (priority, deadline_ns) in enumerate(requests):
        queue.push(arrival, arrival=arrival, priority=priority, deadline_ns=deadline_ns)
    late = queue.expired(now_ns)
    taken = [queue.take() for _ in range(len(queue))]
    assert sorted(late + taken) == list(range(len(requests)))
    assert all(0 < requests[number][1] <= now_ns for number in late)
    assert taken == sorted(taken, key=lambda number: (-requests[number][0], number))
