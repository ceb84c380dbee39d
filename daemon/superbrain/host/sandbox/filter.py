"""The worker's system call filter: a seccomp program, written and applied without a library.

Each call is allowed or answered with an error, EPERM or, where callers have a fallback, ENOSYS:
bundle code gets an OSError that the report can name, and is not killed. The program is a list of
comparisons that jump forward; `assemble` turns names of places into distances. A unit test runs it
on an interpreter of its own, another in a real process.

    apply(program(Scope(machine="x86_64", pid=os.getpid(), gpu=False)))

Layout of what the kernel hands to the program (struct seccomp_data, linux/seccomp.h): number at 0,
processor at 4, six arguments of eight bytes from 16 on. All arguments judged here are ints, of
which the kernel takes the low half, and so do we.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from superbrain.host.sandbox import system_calls as calls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superbrain.host.sandbox.system_calls import Machine, Numbers

# linux/bpf_common.h
LOAD: Final = 0x20
AND: Final = 0x54
JUMP_EQUAL: Final = 0x15
JUMP_GREATER: Final = 0x25
JUMP_AT_LEAST: Final = 0x35
JUMP_ANY_BIT: Final = 0x45
RETURN: Final = 0x06

ALLOW: Final = 0x7FFF0000
ERROR: Final = 0x00050000
NUMBER_AT: Final = 0
PROCESSOR_AT: Final = 4
ARGUMENTS_AT: Final = 16
INSTRUCTION: Final = struct.Struct("HBBI")

_FARTHEST: Final = 255
_X32: Final = 0x40000000  # numbers of another convention of x86_64, which nothing here uses
_SET_MODE_FILTER: Final = 1
# Without it kernels before 5.16 turn speculation off for every filtered process, which slows down
# all that it computes.
_SPEC_ALLOW: Final = 1 << 2

_CLONE_THREAD: Final = 0x10000
_SHARED_ANONYMOUS: Final = 0x01 | 0x20
_ACCESS_AND_TRUNCATE: Final = 0o1003
_TRUNCATE: Final = 0o1000
_AF_UNIX: Final = 1
_SOCKET_KIND: Final = 0xF
_STREAM_AND_SEQPACKET: Final = (1, 5)  # datagrams could be sent to any socket that has a name
_SIGNAL_BY_DESCRIPTOR: Final = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
_OWNER_AND_TERMINAL: Final = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN SIOCSPGRP TIOCSTI -LINUX
_LIFE_AND_TRACING: Final = (1, 4, 0x59616D61)  # PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_PTRACER

_SELF_ONLY: Final = (calls.KILL, calls.TGKILL, calls.RT_SIGQUEUEINFO, calls.RT_TGSIGQUEUEINFO)
_SELF_OR_ZERO: Final = (
    calls.PRLIMIT64,
    calls.SCHED_SETAFFINITY,
    calls.SCHED_SETSCHEDULER,
    calls.SCHED_SETPARAM,
    calls.SCHED_SETATTR,
)


class Scope(NamedTuple):
    """What a program is made for: the processor, the one process it lets signal itself, GPU use."""

    machine: Machine
    pid: int
    gpu: bool


class Step(NamedTuple):
    """One instruction; jumps name the place to go to, empty for the next instruction."""

    code: int
    value: int
    if_true: str = ""
    if_false: str = ""


class Place(NamedTuple):
    """A name for the instruction that follows."""

    name: str


def this_machine() -> Machine | None:
    """Give this processor, if the filter knows it and Python runs in its full width."""
    name = platform.machine()
    known = name in calls.AUDIT_ARCH and struct.calcsize("P") == 8
    return cast("Machine", name) if known else None


def program(scope: Scope) -> bytes:
    """Make the program for one process."""
    return assemble([*_by_number(scope), *_by_argument(scope), *_verdicts()])


def apply(code: bytes) -> None:
    """Put the calling thread, and all that it starts, under a program for good.

    Raises:
        OSError: the kernel has no seccomp filters, or the process may still gain privileges.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    machine = this_machine()
    if machine is None:
        raise OSError(errno.ENOSYS, f"no filter is written for {platform.machine()}")
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // INSTRUCTION.size, ctypes.addressof(buffer))
    numbers = (getattr(calls.SECCOMP, machine), _SET_MODE_FILTER, _SPEC_ALLOW)
    if libc.syscall(*map(ctypes.c_long, numbers), header) != 0:
        found = ctypes.get_errno()
        raise OSError(found, "seccomp(SECCOMP_SET_MODE_FILTER) failed")


def assemble(lines: Sequence[Step | Place]) -> bytes:
    """Turn steps into instructions.

    Raises:
        ValueError: a jump is farther than the kernel's format can say.
    """
    places: dict[str, int] = {}
    steps: list[Step] = []
    for line in lines:
        if isinstance(line, Place):
            places[line.name] = len(steps)
        else:
            steps.append(line)
    return b"".join(_instruction(at, step, places) for at, step in enumerate(steps))


def _instruction(at: int, step: Step, places: dict[str, int]) -> bytes:
    jumps = [places[name] - at - 1 if name else 0 for name in (step.if_true, step.if_false)]
    if not all(0 <= jump <= _FARTHEST for jump in jumps):
        raise ValueError(f"expected jumps of 0 to {_FARTHEST} instructions, found {jumps} at {at}")
    return INSTRUCTION.pack(step.code, *jumps, step.value)


def _numbers(named: Iterable[Numbers], machine: Machine) -> list[int]:
    return [number for one in named if (number := getattr(one, machine)) >= 0]


def _by_number(scope: Scope) -> Iterator[Step | Place]:
    """Decide what the number alone decides, the most frequent first."""
    yield Step(LOAD, PROCESSOR_AT)
    yield Step(JUMP_EQUAL, calls.AUDIT_ARCH[scope.machine], if_false="unknown")
    yield Step(LOAD, NUMBER_AT)
    for number in _numbers(calls.FREQUENT, scope.machine):
        yield Step(JUMP_EQUAL, number, "allow")
    yield Step(JUMP_GREATER, calls.NEWEST, "unknown")  # and so is x32
    for number in _numbers(calls.UNKNOWN.values(), scope.machine):
        yield Step(JUMP_EQUAL, number, "unknown")
    refused = calls.REFUSED if scope.gpu else calls.REFUSED | calls.REFUSED_WITHOUT_GPU
    for first, last in _ranges(_numbers(refused.values(), scope.machine)):
        yield from _refuse_range(first, last)


def _refuse_range(first: int, last: int) -> Iterator[Step | Place]:
    if first == last:
        yield Step(JUMP_EQUAL, first, "refuse")
        return
    after = f"after {last}"
    yield Step(JUMP_AT_LEAST, first, if_false=after)
    yield Step(JUMP_GREATER, last, if_false="refuse")
    yield Place(after)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Join numbers that follow each other."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


class _Question(NamedTuple):
    """Calls that are judged alike, and how."""

    numbers: tuple[Numbers, ...]
    steps: tuple[Step, ...]


def _by_argument(scope: Scope) -> Iterator[Step | Place]:
    """Decide what an argument decides; everything else is allowed."""
    questions = list(_questions(scope))
    for index, question in enumerate(questions):
        for number in _numbers(question.numbers, scope.machine):
            yield Step(JUMP_EQUAL, number, f"question {index}")
    yield Step(RETURN, ALLOW)
    for index, question in enumerate(questions):
        yield Place(f"question {index}")
        yield from question.steps


def _questions(scope: Scope) -> Iterator[_Question]:
    own = Step(JUMP_EQUAL, scope.pid, "allow", "refuse")
    # Threads yes, processes no.
    thread = Step(JUMP_ANY_BIT, _CLONE_THREAD, "allow", "refuse")
    yield _Question((calls.CLONE,), (_argument(0), thread))
    if not scope.gpu:  # memory that is shared with nobody is private, and the limit counts it
        yield _Question((calls.MMAP,), _all_bits(3, _SHARED_ANONYMOUS, _SHARED_ANONYMOUS))
    # Kernels before 6.2 let a file be truncated that may only be read.
    yield _Question((calls.OPEN,), _all_bits(1, _ACCESS_AND_TRUNCATE, _TRUNCATE))
    yield _Question((calls.OPENAT,), _all_bits(2, _ACCESS_AND_TRUNCATE, _TRUNCATE))
    yield _Question((calls.FCNTL,), _none_of(1, _SIGNAL_BY_DESCRIPTOR))
    yield _Question((calls.IOCTL,), _none_of(1, _OWNER_AND_TERMINAL))
    yield _Question((calls.PRCTL,), _none_of(0, _LIFE_AND_TRACING))
    yield _Question((calls.SOCKETPAIR,), _local_stream())
    if scope.gpu:
        yield _Question((calls.SOCKET,), _local_stream())
    yield _Question(_SELF_ONLY, (_argument(0), own))
    yield _Question(_SELF_OR_ZERO, (_argument(0), Step(JUMP_EQUAL, 0, "allow"), own))


def _argument(index: int) -> Step:
    """Load the low half of an argument; both processors are little-endian."""
    return Step(LOAD, ARGUMENTS_AT + 8 * index)


def _all_bits(argument: int, mask: int, refused: int) -> tuple[Step, ...]:
    found = Step(JUMP_EQUAL, refused, "refuse", "allow")
    return (_argument(argument), Step(AND, mask), found)


def _none_of(argument: int, refused: Sequence[int]) -> tuple[Step, ...]:
    compared = [Step(JUMP_EQUAL, value, "refuse") for value in refused]
    return (_argument(argument), *compared, Step(RETURN, ALLOW))


def _local_stream() -> tuple[Step, ...]:
    """A socket of this host that must be connected before anything can be sent."""
    kinds = [Step(JUMP_EQUAL, kind, "allow") for kind in _STREAM_AND_SEQPACKET]
    return (
        _argument(0),
        Step(JUMP_EQUAL, _AF_UNIX, if_false="refuse"),
        _argument(1),
        Step(AND, _SOCKET_KIND),
        *kinds,
        Step(RETURN, ERROR | errno.EPERM),
    )


def _verdicts() -> Iterator[Step | Place]:
    yield Place("allow")
    yield Step(RETURN, ALLOW)
    yield Place("refuse")
    yield Step(RETURN, ERROR | errno.EPERM)
    yield Place("unknown")
    yield Step(RETURN, ERROR | errno.ENOSYS)
