"""The tally: many rows at a time are counted as each of them would be, whenever somebody asks."""

from __future__ import annotations

import random
import sys
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.domain.ctl import Quantiles
from superbrain.domain.durations import BOUNDS_NS, STAGES, Histogram
from superbrain.serve.stage_clock import StageClock
from superbrain.serve.tally import ALONE, DIRECT, ROWS, Tally, Totals
from tests.support.tally_rows import leave, rows_of

MS = 1_000_000
SIZES = (0, 1, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 1279, 1280, 1281, 2048, 2500)

Row = tuple[int, int, int, int, int, int]
Writer = Callable[[Tally, Row], None]


def clock(began_ns: int, first_ns: int, engine_ns: int) -> StageClock:
    made = StageClock()
    made.began_ns, made.first_ns, made.engine_ns = began_ns, first_ns, engine_ns
    return made


def add(tally: Tally, row: Row) -> None:
    """Add a row as Python does."""
    arrived, *times, ended, flags = row
    tally.add(arrived, clock(*times), ended, direct=bool(flags & DIRECT), alone=bool(flags & ALONE))


class Told(NamedTuple):
    """All that can be asked of a tally, to be compared."""

    numbers: tuple[int, ...]
    histograms: dict[str, Histogram]
    latest: Quantiles


def told(totals: Totals) -> Told:
    whole, stages = totals.histograms()
    numbers = totals.answered, totals.direct, totals.runs, totals.executed_ns, totals.longest_ns
    by_name = {str(stage): durations for stage, durations in stages.items()}
    return Told(numbers, by_name | {"whole": whole}, totals.quantiles())


class Durations:
    """Durations in buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_NS) + 1)
        self._sum_ns = 0

    def add(self, duration_ns: int) -> None:
        self._counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self._sum_ns += duration_ns

    def histogram(self) -> Histogram:
        return Histogram(list(self._counts), self._sum_ns)


def _quantiles(durations_ns: Iterable[int]) -> Quantiles:
    """The nearest rank of each share, in milliseconds."""
    ordered = [duration_ns / MS for duration_ns in sorted(durations_ns)]
    if not ordered:
        return Quantiles()
    p50, p90, p99, most = (ordered[round((len(ordered) - 1) * one)] for one in (0.5, 0.9, 0.99, 1))
    return Quantiles(p50, p90, p99, most)


class OneByOne:
    """Counts each row when it comes, in the plainest way."""

    def __init__(self) -> None:
        self._answered = self._direct = self._runs = self._executed_ns = self._longest_ns = 0
        self._durations = {name: Durations() for name in (*STAGES, "whole")}
        self._latest: deque[int] = deque(maxlen=1024)

    def add(self, row: Row) -> None:
        arrived, began, first, engine, ended, flags = row
        self._answered += 1
        self._direct += bool(flags & DIRECT)
        if flags & ALONE:
            self._runs += 1
            self._executed_ns += ended - began
            self._longest_ns = max(self._longest_ns, ended - began)
        _, *times = clock(began, first, engine).times(ended)
        parts = (began - arrived, *times, ended - arrived)
        for durations, took_ns in zip(self._durations.values(), parts, strict=True):
            durations.add(took_ns)
        self._latest.append(ended - arrived)

    def told(self) -> Told:
        numbers = self._answered, self._direct, self._runs, self._executed_ns, self._longest_ns
        histograms = {name: durations.histogram() for name, durations in self._durations.items()}
        return Told(numbers, histograms, _quantiles(self._latest))


def some_rows(count: int) -> list[Row]:
    """Rows of all kinds: also without a run of a graph, or with runs beyond the request's end."""
    chance = random.Random(count)

    def some_ns() -> int:
        return int(10 ** chance.uniform(0, 10.6))

    rows = []
    for number in range(count):
        arrived = some_ns()
        began = arrived + some_ns()
        first = chance.choice((0, began - 1, began, began + some_ns()))
        ended = max(first, began) + some_ns()
        engine = chance.choice((0, some_ns(), ended - began + 1)) if first else 0
        rows.append((arrived, began, first, engine, ended, number % 4))
    chance.shuffle(rows)
    return rows


@pytest.mark.parametrize("write", [add, leave])
@pytest.mark.parametrize("count", SIZES)
def test_many_at_a_time_are_counted_as_one_by_one(count: int, write: Writer) -> None:
    tally, expected = Tally(), OneByOne()
    for row in some_rows(count):
        write(tally, row)
        expected.add(row)
    assert told(tally.totals()) == expected.told()


@pytest.mark.parametrize("write", [add, leave])
def test_who_asks_after_every_row_is_told_of_every_row(write: Writer) -> None:
    tally, expected = Tally(), OneByOne()
    for row in some_rows(2 * ROWS + 9):
        write(tally, row)
        expected.add(row)
        assert told(tally.totals()) == expected.told()


near_bounds = st.builds(int.__add__, st.sampled_from((0, 1, *BOUNDS_NS)), st.integers(0, 1))


@given(st.lists(st.tuples(*[near_bounds] * 5, st.integers(0, 3)), max_size=6))
def test_bounds_belong_to_the_buckets_that_they_do_one_by_one(
    requests: list[tuple[int, ...]],
) -> None:
    tally, expected = Tally(), OneByOne()
    for waited, before, run, after, arrived, flags in requests:
        began = arrived + waited
        first = began + before if run else 0
        row = (arrived, began, first, run, began + before + run + after, flags)
        add(tally, row)
        expected.add(row)
    assert told(tally.totals()) == expected.told()


@pytest.mark.parametrize("count", [1023, 1024, 1025, 1280, 1281, 3000])
def test_the_latest_are_the_newest_in_their_order(count: int) -> None:
    tally = Tally()
    for number in range(count):
        leave(tally, (0, 0, 0, 0, number, 0))
    assert tally.totals().latest_ns.tolist() == list(range(count))[-1024:]


def test_nothing_is_all_zeros() -> None:
    empty = told(Tally().totals())
    assert empty.numbers == (0,) * 5
    assert empty.latest == Quantiles()
    assert set(empty.histograms) == {*STAGES, "whole"}
    assert all(one.count == one.sum_ns == 0 for one in empty.histograms.values())
    assert all(len(one.counts) == len(BOUNDS_NS) + 1 for one in empty.histograms.values())


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_python_leaves_the_row_that_compiled_code_does(direct: bool, alone: bool) -> None:
    tally = Tally()
    assert len(tally.room) == 8 + 256 * 48
    tally.add(1, clock(2, 3, 4), 5 << 40, direct=direct, alone=alone)
    tally.add(6, clock(7, 8, 9), 10, direct=False, alone=False)
    flags = 1 * direct + 2 * alone
    assert rows_of(tally.room) == [(1, 2, 3, 4, 5 << 40, flags), (6, 7, 8, 9, 10, 0)]


def test_there_is_a_new_room_when_one_is_full() -> None:
    tally = Tally()
    first = tally.room
    for _ in range(ROWS - 1):
        tally.add(1, clock(2, 3, 4), 5, direct=True, alone=True)
        assert tally.room is first
    tally.add(1, clock(2, 3, 4), 5, direct=True, alone=True)
    assert tally.room is not first
    assert tally.room == bytes(len(first))
    assert len(rows_of(first)) == ROWS, "who still reads it finds what was there"


def test_what_somebody_was_told_does_not_change() -> None:
    tally = Tally()
    rows = some_rows(3 * ROWS)
    for row in rows[: ROWS + 9]:
        leave(tally, row)
    totals = tally.totals()
    before = told(totals)
    for row in rows[ROWS + 9 :]:
        leave(tally, row)
    assert told(totals) == before


# --- whoever asks while somebody writes ---------------------------------------------------------


def row_of(number: int) -> Row:
    """Give the row with this number from 1; what all up to it add up to is known."""
    return (0, 0, 0, 0, number, number % 4)


def assert_those_up_to(answered: int, totals: Totals) -> None:
    """All of the first rows are counted, each once, and nothing else."""
    whole, stages = totals.histograms()
    latest = range(1, answered + 1)[-1024:]
    alone = [number for number in range(answered + 1) if number & ALONE]
    assert totals.answered == whole.count == answered
    assert {stage.count for stage in stages.values()} == {answered}
    assert whole.sum_ns == stages["preprocess"].sum_ns == answered * (answered + 1) // 2
    assert totals.direct == (answered + 1) // 2
    assert (totals.runs, totals.executed_ns) == (len(alone), sum(alone))
    assert totals.longest_ns == max(alone, default=0)
    assert totals.latest_ns.tolist() == list(latest)


def test_at_any_moment_of_writing_all_rows_so_far_are_told() -> None:
    """Asked between any two calls that writing makes, in the middle of `full` too."""
    tally, seen = Tally(), list[Totals]()

    def ask(*_: Any) -> None:  # noqa: ANN401
        seen.append(tally.totals())

    before, at = sys.getprofile(), clock(0, 0, 0)
    for number in range(1, 2 * ROWS + 2):
        *_, flags = row_of(number)
        near = number % ROWS in {0, 1, ROWS - 1}
        sys.setprofile(ask if near else before)
        tally.add(0, at, number, direct=bool(flags & DIRECT), alone=bool(flags & ALONE))
        sys.setprofile(before)
        assert not near or len(seen) > 5
        told_of = [totals.answered for totals in seen]
        assert told_of == sorted(told_of)
        assert set(told_of) <= {number - 1, number}
        for totals in seen:
            assert_those_up_to(totals.answered, totals)
        seen.clear()


@pytest.mark.parametrize("write", [add, leave])
def test_another_thread_never_misses_a_row_nor_counts_one_twice(write: Writer) -> None:
    tally, count = Tally(), 30 * ROWS
    seen: list[Totals] = []
    written = threading.Event()

    def read() -> None:
        while not written.is_set():
            seen.append(tally.totals())

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(1, count + 1):
            write(tally, row_of(number))
    finally:
        written.set()
        reader.join()
        sys.setswitchinterval(interval_s)
    told_of = [totals.answered for totals in seen]
    assert told_of == sorted(told_of)
    for totals in seen[:: 1 + len(seen) // 500]:
        assert_those_up_to(totals.answered, totals)
    assert_those_up_to(count, tally.totals())
