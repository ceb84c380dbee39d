"""Who shares a run, and how long the first one waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.batching import Part, Patience, partition, window
from superbrain.domain.manifest import Batching

MS = 1_000_000
NEVER = 1 << 63
parts = st.lists(
    st.builds(Part, st.sampled_from([None, "a", "b", "c"]), st.integers(0, 9)), max_size=40
)


@given(parts, st.integers(1, 8))
def test_every_request_is_in_exactly_one_run(requests: list[Part], max_size: int) -> None:
    groups = partition(requests, max_size)
    assert sorted(n for group in groups for n in group) == list(range(len(requests)))


@given(parts, st.integers(1, 8))
def test_a_run_has_one_signature_and_no_more_rows_than_allowed(
    requests: list[Part], max_size: int
) -> None:
    for group in partition(requests, max_size):
        mates = [requests[n] for n in group]
        if len(mates) > 1:
            assert len({mate.signature for mate in mates}) == 1
            assert mates[0].signature is not None
            assert sum(mate.rows for mate in mates) <= max_size


@given(parts, st.integers(1, 8))
def test_within_a_signature_nobody_overtakes(requests: list[Part], max_size: int) -> None:
    order = [n for group in partition(requests, max_size) for n in group]
    for signature in "abc":
        alike = [n for n in order if requests[n].signature == signature]
        assert alike == sorted(alike)


def test_different_shapes_between_them_do_not_keep_equals_apart() -> None:
    requests = [Part("a", 1), Part("b", 1), Part("a", 1), Part("b", 1)]
    assert partition(requests, 8) == [[0, 2], [1, 3]]


def test_a_request_of_more_rows_than_a_run_takes_runs_alone() -> None:
    assert partition([Part("a", 1), Part("a", 9), Part("a", 1)], 4) == [[0], [1], [2]]


# --- patience -------------------------------------------------------------------------------------


def patience(*, max_size: int = 8, delay_ms: int = 5, adaptive: bool = True) -> Patience:
    return Patience(Batching(max_size, delay_ms, adaptive))


@given(st.integers(1, 8), st.integers(0, 10**12))
def test_an_idle_worker_never_waits(waiting: int, now_ns: int) -> None:
    assert patience().hold_until_ns(waiting, now_ns + 6 * MS, NEVER) == 0


def test_with_no_delay_nobody_ever_waits() -> None:
    eager = patience(delay_ms=0)
    eager.executed(8, 1000)
    assert not eager.ever_waits
    assert eager.hold_until_ns(1, 1001, NEVER) == 0


def test_callers_who_were_answered_together_are_waited_for() -> None:
    waiter = patience()
    waiter.executed(4, 10 * MS)
    assert waiter.hold_until_ns(3, 11 * MS, NEVER) == 16 * MS
    assert waiter.hold_until_ns(4, 11 * MS, NEVER) == 0


def test_who_does_not_come_back_is_not_waited_for_again() -> None:
    waiter = patience()
    waiter.executed(4, 10 * MS)
    waiter.executed(2, 17 * MS)
    assert waiter.hold_until_ns(2, 18 * MS, NEVER) == 0


def test_a_batch_long_ago_is_no_reason_to_wait() -> None:
    waiter = patience()
    waiter.executed(4, 10 * MS)
    assert waiter.hold_until_ns(1, 16 * MS, NEVER) == 0


def test_without_adaption_a_batch_is_waited_for_until_it_is_full() -> None:
    stubborn = patience(adaptive=False)
    assert stubborn.hold_until_ns(7, 100 * MS, NEVER) == 105 * MS
    assert stubborn.hold_until_ns(8, 100 * MS, NEVER) == 0


def test_nobody_is_held_beyond_a_deadline() -> None:
    assert patience(adaptive=False).hold_until_ns(1, 100 * MS, 104 * MS) == 0


# --- window ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("execution_ms", "size"),
    [(0.0, 2), (100.0, 2), (2.0, 2), (1.0, 2), (0.4, 5), (0.2, 10), (0.001, 32)],
)
def test_the_faster_a_model_the_more_requests_travel_together(
    execution_ms: float, size: int
) -> None:
    assert window(execution_ms, 1) == size


@pytest.mark.parametrize(("execution_ms", "size"), [(0.0, 32), (5.0, 32), (0.001, 32)])
def test_two_batches_always_travel(execution_ms: float, size: int) -> None:
    assert window(execution_ms, 16) == size
