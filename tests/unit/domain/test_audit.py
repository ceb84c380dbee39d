"""The chain of the audit trail: every change, cut and insertion shows."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.audit import (
    Action,
    Chain,
    Entry,
    Link,
    check_chain,
    check_head,
    encode_entry,
    link_of,
)

AT = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)


def lines(count: int, first: int = 1) -> list[bytes]:
    """A chain of entries."""
    made: list[bytes] = []
    last = Link(first - 1)
    for number in range(first, first + count):
        entry = Entry(number, AT, Action.ORDER, last.sha256, f"order {number}")
        made.append(encode_entry(entry))
        last = link_of(made[-1], number)
    return made


def shortened(after: list[bytes], up_to: int) -> list[bytes]:
    """Add the entry that says which ones were let go."""
    number = len(after) + up_to + 1
    before = link_of(after[-1], number - 1).sha256
    entry = Entry(number, AT, Action.TRAIL_SHORTENED, before, str(up_to))
    return [*after, encode_entry(entry)]


def test_a_chain_as_it_was_written_has_no_fault() -> None:
    chain = check_chain(lines(9))
    assert (chain.faults, chain.entries, chain.first, chain.last.sequence) == ([], 9, 1, 9)


@given(st.integers(2, 12), st.data())
def test_a_changed_line_breaks_the_chain_unless_it_is_the_last(
    count: int, data: st.DataObject
) -> None:
    made = lines(count)
    at = data.draw(st.integers(0, count - 2))
    made[at] = made[at].replace(b"order", b"ORDER", 1)
    assert check_chain(made).faults


@given(st.integers(3, 12), st.data())
def test_a_missing_line_breaks_the_chain_unless_it_is_at_an_end(
    count: int, data: st.DataObject
) -> None:
    made = lines(count)
    del made[data.draw(st.integers(1, count - 2))]
    assert check_chain(made).faults


@given(st.permutations(range(5)))
def test_another_order_breaks_the_chain(order: list[int]) -> None:
    made = lines(5)
    faults = check_chain([made[at] for at in order]).faults
    assert bool(faults) == (list(order) != sorted(order))


def test_an_inserted_line_breaks_the_chain() -> None:
    made = lines(4)
    assert check_chain([*made[:2], made[1], *made[2:]]).faults
    assert check_chain([*made[:2], b"{}", *made[2:]]).faults


def test_a_beginning_that_was_cut_is_told_from_one_that_was_let_go() -> None:
    kept = lines(3, first=8)
    (fault,) = check_chain(kept).faults
    assert "expected entry 1 first, found 8" in fault
    assert check_chain(shortened(kept, 7)).faults == []
    assert check_chain(shortened(kept, 6)).faults


def test_an_end_that_was_cut_shows_by_the_head() -> None:
    made = lines(5)
    head = link_of(made[-1], 5)
    for count, faults in ((5, 0), (4, 1), (0, 1)):
        chain = check_chain(made[:count])
        check_head(chain, head)
        assert len(chain.faults) == faults


def test_a_changed_last_line_shows_by_the_head() -> None:
    made = lines(5)
    head = link_of(made[-1], 5)
    chain = check_chain([*made[:-1], made[-1].replace(b"order", b"ORDER", 1)])
    check_head(chain, head)
    (fault,) = chain.faults
    assert "entry 5 is not the one that was written" in fault


def test_a_trail_ahead_of_its_head_is_whole() -> None:
    made = lines(5)
    chain = check_chain(made)
    check_head(chain, link_of(made[3], 4))
    assert chain.faults == []


def test_a_file_goes_on_after_the_one_before_it() -> None:
    made = lines(6)
    assert check_chain(made[3:], begins_after=link_of(made[2], 3)).faults == []
    assert check_chain(made[3:], begins_after=link_of(made[1], 2)).faults


@pytest.mark.parametrize("count", [1, 1000])
def test_only_the_first_faults_are_told(count: int) -> None:
    chain = Chain(faults=[])
    for number in range(count):
        chain.fault(str(number))
    assert len(chain.faults) == min(count, 20)
