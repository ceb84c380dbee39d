"""Which processor: what the kernel says of real processes after each call."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from superbrain.host import processors
from superbrain.host.scheduling import thread_ids

ALL = os.sched_getaffinity(0)
SLEEPS = """
import sys, threading
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
print(thread.native_id, flush=True)
sys.stdin.read()
"""
RUNS = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""
Begin = Callable[..., int]

several = pytest.mark.skipif(len(ALL) < 2, reason="needs two processors")


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a program with arguments; give its process id when it has said that it is there."""
    children: list[subprocess.Popen[bytes]] = []

    def start(program: str, *arguments: object) -> int:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline()
        while program is SLEEPS and any(runs(child.pid)):
            os.sched_yield()
        return child.pid

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def ended() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def runs(pid: int) -> list[bool]:
    """Whether each thread of a process runs."""
    return [processors.whereabouts(pid, one).runs for one in thread_ids(pid)]


def allowed(pid: int) -> list[set[int]]:
    """Where each thread of a process may run."""
    threads = thread_ids(pid)
    assert len(threads) > 1
    return [os.sched_getaffinity(thread) for thread in threads]


def test_who_runs_is_told_from_who_sleeps(begin: Begin) -> None:
    last = max(ALL)
    running, sleeping = begin(RUNS, last), begin(SLEEPS)
    assert processors.whereabouts(running, running) == (last, True)
    assert runs(sleeping) == [False, False]


def test_where_an_ended_process_is_cannot_be_told(ended: int) -> None:
    with pytest.raises(OSError, match="stat"):
        processors.whereabouts(ended, ended)


def test_the_first_thread_takes_the_place_and_all_roam_again(begin: Begin) -> None:
    for place in ALL:
        predecessor, pid = begin(RUNS, place), begin(SLEEPS)
        with processors.in_place_of(predecessor, pid):
            assert allowed(pid) == [{place}, ALL]
        assert allowed(pid) == [ALL, ALL]


def test_a_thread_that_is_started_meanwhile_roams_too(begin: Begin) -> None:
    predecessor, pid = begin(RUNS, min(ALL)), begin(SLEEPS)
    with processors.in_place_of(predecessor, pid):
        os.sched_setaffinity(thread_ids(pid)[1], {min(ALL)})
    assert allowed(pid) == [ALL, ALL]


def test_what_fails_meanwhile_is_told_and_all_roam_again(begin: Begin) -> None:
    predecessor, pid = begin(RUNS, min(ALL)), begin(SLEEPS)
    with pytest.raises(OSError, match="it"), processors.in_place_of(predecessor, pid):
        raise OSError("it")
    assert allowed(pid) == [ALL, ALL]


def test_without_a_predecessor_nothing_changes(begin: Begin, ended: int) -> None:
    pid = begin(SLEEPS)
    with processors.in_place_of(ended, pid):
        assert allowed(pid) == [ALL, ALL]
    with processors.in_place_of(pid, ended):
        assert allowed(pid) == [ALL, ALL]


@several
def test_who_steps_aside_leaves_the_processor_of_who_runs(begin: Begin) -> None:
    last = max(ALL)
    running, idle, pid = begin(RUNS, last), begin(SLEEPS), begin(SLEEPS)
    processors.step_aside(pid, [running, idle])
    assert allowed(pid) == [ALL - {last}, ALL - {last}]
    assert allowed(idle) == [ALL, ALL]
    processors.roam(pid)
    assert allowed(pid) == [ALL, ALL]


def test_nobody_steps_aside_for_who_sleeps_or_has_ended(begin: Begin, ended: int) -> None:
    idle, pid = begin(SLEEPS), begin(SLEEPS)
    processors.step_aside(pid, [idle, ended])
    assert allowed(pid) == [ALL, ALL]


def test_nobody_steps_aside_where_no_processor_is_left(begin: Begin) -> None:
    running, pid = [begin(RUNS, one) for one in ALL], begin(SLEEPS)
    processors.step_aside(pid, running)
    assert allowed(pid) == [ALL, ALL]


def test_who_needs_more_than_is_left_does_not_step_aside(begin: Begin) -> None:
    running, pid = begin(RUNS, max(ALL)), begin(SLEEPS)
    processors.step_aside(pid, [running], len(ALL))
    assert allowed(pid) == [ALL, ALL]


def test_of_an_ended_process_nothing_is_wanted(begin: Begin, ended: int) -> None:
    processors.step_aside(ended, [begin(RUNS, max(ALL))])
    processors.roam(ended)
    assert thread_ids(ended) == []
