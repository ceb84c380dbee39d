"""Turns on the processor: a process that prepares lets those that answer go first.

Linux (6.12 and later) gives every task its turn in slices, three milliseconds by default, and a
task that wakes up may cut in on one whose slice is longer. So a worker that loads and proves a
model asks for the longest slice there is: it gets its share of the processor as before, but whoever
serves meanwhile does not wait for the end of its turn. No privilege is needed. Older kernels take
the same call and ignore the slice.
A process whose work can wait for minutes stands back altogether: it runs when nobody else wants to.
Source: sched_setattr(2); `__setparam_fair` in the kernel's kernel/sched/syscalls.c.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

LONGEST_SLICE_NS: Final = 100_000_000
DEFAULT_SLICE: Final = 0

_SYSCALL: Final = {"x86_64": 314, "aarch64": 274}
# size, policy, flags, nice, priority, runtime, deadline, period, least and greatest utilisation
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQII")
_SCHED_OTHER: Final = 0
_NICEST: Final = 19
_AUTOGROUP: Final = Path("/proc/self/autogroup")


def give_way() -> None:
    """Let other processes cut in on every thread of this one, and on those that it starts."""
    _slice_all(os.getpid(), LONGEST_SLICE_NS)


def take_turns(pid: int) -> None:
    """Let every thread of a process share the processors like everybody else again.

    A worker's sandbox keeps it from saying so for its other threads.
    """
    _slice_all(pid, DEFAULT_SLICE)


def stand_back() -> None:
    """Let everybody else go first, on every thread that is started from now on.

    The kernel gives such a process what is left over, and a small share where nothing is. It
    lowers the weight of the whole session, so it is for a process that is the first of its own.

    It keeps to a few processors: who wakes up on one where it is within the kernel waits for it,
    however little it counts.
    """
    with suppress(OSError):  # a filter of system calls may refuse either
        os.setpriority(os.PRIO_PROCESS, 0, _NICEST)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):
        os.sched_setaffinity(0, _few_of(os.sched_getaffinity(0)))
    with suppress(OSError):  # kernels that weigh sessions against each other, not processes
        _AUTOGROUP.write_text(str(_NICEST), encoding="ascii")


def thread_ids(pid: int) -> list[int]:
    """Give the threads of a process, the first one first; none when it has ended."""
    with suppress(OSError):
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - names
    return []


def _few_of(processors: set[int]) -> set[int]:
    """The last quarter of them, or the last one."""
    return set(sorted(processors)[-max(1, len(processors) // 4) :])


def _slice_all(pid: int, slice_ns: int) -> None:
    number = _SYSCALL.get(platform.machine())
    if number is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for thread_id in thread_ids(pid):
        with suppress(OSError):  # a thread may have ended; a kernel may not know this
            _set_slice(libc, number, thread_id, slice_ns)


def _set_slice(libc: ctypes.CDLL, number: int, thread_id: int, slice_ns: int) -> None:
    nice = os.getpriority(os.PRIO_PROCESS, thread_id)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0, 0, 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    if libc.syscall(number, thread_id, buffer, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
