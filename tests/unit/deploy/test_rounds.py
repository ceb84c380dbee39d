"""The rounds: who is looked at, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from superbrain.deploy.rounds import LOOK_S, Rounds

PATIENCE_S = 30.0


class Watched:
    """Counts looks; `does` is done at each."""

    def __init__(self, does: Callable[[], None] = lambda: None) -> None:
        self.looks = 0
        self.seen = threading.Event()
        self._does = does

    def look(self) -> None:
        self.looks += 1
        self.seen.set()
        self._does()


class Clock:
    """Lets one round follow when it is told to."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._next = threading.Semaphore(0)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        assert self._next.acquire(timeout=PATIENCE_S)

    def round(self) -> None:
        """Let one pause pass, the present one or the next."""
        self._next.release()


def thread_of_rounds() -> threading.Thread:
    (thread,) = (one for one in threading.enumerate() if one.name == "rounds")
    return thread


@pytest.fixture(autouse=True)
def nobody_goes_round_yet() -> None:
    for thread in threading.enumerate():
        if thread.name == "rounds":
            thread.join(PATIENCE_S)


def test_everybody_is_looked_at_ten_times_a_second_by_one_thread() -> None:
    clock, watched = Clock(), [Watched() for _ in range(3)]
    rounds = Rounds(clock.pause)
    for one in watched:
        rounds.begin(one)
    thread = thread_of_rounds()
    clock.round()
    for one in watched:
        assert one.seen.wait(PATIENCE_S)
        rounds.end(one)
    clock.round()
    thread.join(PATIENCE_S)
    assert set(clock.pauses) == {LOOK_S}
    assert LOOK_S <= 0.1


def test_one_that_fails_keeps_nobody_from_being_looked_at() -> None:
    def fail() -> None:
        msg = "it fails"
        raise ValueError(msg)

    clock, failing, other = Clock(), Watched(fail), Watched()
    rounds = Rounds(clock.pause)
    rounds.begin(failing)
    rounds.begin(other)
    clock.round()
    assert other.seen.wait(PATIENCE_S)
    other.seen.clear()
    clock.round()
    assert other.seen.wait(PATIENCE_S)
    assert failing.looks >= 2
    rounds.end(failing)
    rounds.end(other)
    clock.round()


def test_when_nobody_is_left_the_thread_ends_and_begins_again_with_the_next() -> None:
    clock = Clock()
    rounds = Rounds(clock.pause)
    for _ in range(2):
        watched = Watched()
        rounds.begin(watched)
        thread = thread_of_rounds()
        clock.round()
        assert watched.seen.wait(PATIENCE_S)
        rounds.end(watched)
        clock.round()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
