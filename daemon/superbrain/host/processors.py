"""Which processor: who executes for long is not put with others on one while another is idle.

On a host with few processors, one of them busy with answers, Linux does not look for an idle one
when a task wakes up: the task stays where it ran last, and takes turns there of a whole tick of
the clock (four milliseconds, commonly). So a worker that takes over from another is woken beside
gateway and callers, while the processor of the other falls idle; and one that loads, or that ends
and frees its memory, does so where another answers. They are put elsewhere here. Nothing of this is
a promise: where the kernel refuses, or has no processor left, it decides as before.

No privilege is needed for processes of the same user.
Source: `select_idle_cpu` with SIS_UTIL in the kernel's kernel/sched/fair.c; sched_setaffinity(2);
proc_pid_stat(5).
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from superbrain.host.scheduling import thread_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Of the fields behind the name of the program, which may hold anything.
_STATE: Final = 0
_PROCESSOR: Final = 36


class Whereabouts(NamedTuple):
    """The processor that a thread runs on, or ran on last."""

    processor: int
    runs: bool


def whereabouts(pid: int, thread_id: int) -> Whereabouts:
    """Ask the kernel where a thread of a process is.

    Raises:
        OSError: it has ended.
    """
    with open(f"/proc/{pid}/task/{thread_id}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - many
        fields = file.read().rpartition(b")")[2].split()
    return Whereabouts(processor=int(fields[_PROCESSOR]), runs=fields[_STATE] == b"R")


@contextmanager
def in_place_of(predecessor: int, pid: int) -> Iterator[None]:
    """While this lasts, keep a process's first thread to the processor of another's.

    Once it has run there, the kernel wakes it there.

    Args:
        predecessor: a process whose first thread stops meanwhile.
        pid: a process whose first thread goes on instead.
    """
    with suppress(OSError):  # either may have ended
        os.sched_setaffinity(pid, {whereabouts(predecessor, predecessor).processor})
    try:
        yield
    finally:
        roam(pid)


def step_aside(pid: int, others: Iterable[int], least: int = 1) -> None:
    """Keep a process to processors where no thread of `others` runs now, if there are `least`."""
    taken = {found.processor for other in others for found in _threads(other) if found.runs}
    free = os.sched_getaffinity(0) - taken
    if taken and len(free) >= least:
        _keep(pid, free)


def roam(pid: int) -> None:
    """Let a process run wherever this one may."""
    _keep(pid, os.sched_getaffinity(0))


def _keep(pid: int, processors: set[int]) -> None:
    """Keep every thread of a process to some processors; first the first, which starts others."""
    for thread_id in thread_ids(pid):
        with suppress(OSError):
            os.sched_setaffinity(thread_id, processors)


def _threads(pid: int) -> Iterator[Whereabouts]:
    for thread_id in thread_ids(pid):
        with suppress(OSError):
            yield whereabouts(pid, thread_id)
