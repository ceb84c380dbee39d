"""The filter of system calls: every call answered as the lists say, on both processors."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Callable

import pytest

from superbrain.host.sandbox import filter as seccomp
from superbrain.host.sandbox import system_calls as calls
from superbrain.host.sandbox.filter import Place, Scope, Step, assemble, program
from superbrain.host.sandbox.system_calls import Machine, Numbers
from tests.support.bpf import ENOSYS, EPERM, verdict

MACHINES: tuple[Machine, ...] = ("x86_64", "aarch64")
PID = 4321
AF_INET, AF_UNIX, STREAM, DGRAM, SEQPACKET = 2, 1, 1, 2, 5
CLOEXEC = 0o2000000
THREAD_FLAGS = 0x3D0F00  # what glibc starts a thread with


def ask(machine: Machine, call: Numbers, *arguments: int, gpu: bool = False) -> int:
    code = program(Scope(machine, PID, gpu))
    return verdict(code, calls.AUDIT_ARCH[machine], getattr(call, machine), *arguments)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_is_answered_as_the_lists_say(machine: Machine, gpu: bool) -> None:
    code = program(Scope(machine, PID, gpu))
    refused = calls.REFUSED if gpu else calls.REFUSED | calls.REFUSED_WITHOUT_GPU
    expected = dict.fromkeys(range(calls.NEWEST + 1), 0)
    expected |= {getattr(one, machine): EPERM for one in refused.values()}
    expected |= {getattr(one, machine): ENOSYS for one in calls.UNKNOWN.values()}
    judged = [*_by_argument(), *([calls.SOCKET] if gpu else [])]
    by_argument = {getattr(one, machine) for one in judged}
    found = {
        number: verdict(code, calls.AUDIT_ARCH[machine], number)
        for number in expected
        if number not in by_argument
    }
    assert found == {number: expected[number] for number in found}


def _by_argument() -> list[Numbers]:
    names = "CLONE MMAP OPEN OPENAT FCNTL IOCTL PRCTL SOCKETPAIR KILL TGKILL RT_SIGQUEUEINFO"
    more = "RT_TGSIGQUEUEINFO PRLIMIT64 SCHED_SETAFFINITY SCHED_SETSCHEDULER SCHED_SETPARAM"
    return [getattr(calls, name) for name in f"{names} {more} SCHED_SETATTR".split()]


@pytest.mark.parametrize("machine", MACHINES)
def test_no_number_has_two_meanings(machine: Machine) -> None:
    lists = (calls.REFUSED, calls.REFUSED_WITHOUT_GPU, calls.UNKNOWN)
    named = [one for some in lists for one in some.values()]
    numbers = [getattr(one, machine) for one in (*named, *calls.FREQUENT, *_by_argument())]
    there = [number for number in numbers if number >= 0]
    assert len(there) == len(set(there))


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_newer_or_of_another_processor_is_unknown(machine: Machine) -> None:
    code = program(Scope(machine, PID, gpu=False))
    other = next(one for one in MACHINES if one != machine)
    arch = calls.AUDIT_ARCH[machine]
    assert verdict(code, arch, calls.NEWEST + 1) == ENOSYS
    assert verdict(code, arch, 0x40000000 | 1) == ENOSYS  # x32
    assert verdict(code, calls.AUDIT_ARCH[other], getattr(calls.FREQUENT[0], machine)) == ENOSYS


ARGUMENTS: list[tuple[str, Numbers, tuple[int, ...], int]] = [
    ("a thread", calls.CLONE, (THREAD_FLAGS,), 0),
    ("a process", calls.CLONE, (17,), EPERM),
    ("private memory", calls.MMAP, (0, 4096, 3, 0x22), 0),
    ("shared memory of nobody", calls.MMAP, (0, 4096, 3, 0x21), EPERM),
    ("shared memory of a file", calls.MMAP, (0, 4096, 3, 0x01, 5), 0),
    ("reading", calls.OPENAT, (-100, 0, CLOEXEC), 0),
    ("writing anew", calls.OPENAT, (-100, 0, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0),
    ("emptying by reading", calls.OPENAT, (-100, 0, os.O_TRUNC), EPERM),
    ("a flag", calls.FCNTL, (3, 1), 0),
    ("a signal's owner", calls.FCNTL, (3, 8), EPERM),
    ("a signal's number", calls.FCNTL, (3, 10), EPERM),
    ("a device", calls.IOCTL, (3, 0xC0204600), 0),
    ("typing for another", calls.IOCTL, (3, 0x5412), EPERM),
    ("a thread's name", calls.PRCTL, (15,), 0),
    ("outliving the daemon", calls.PRCTL, (1,), EPERM),
    ("hiding from the daemon", calls.PRCTL, (4,), EPERM),
    ("a pair", calls.SOCKETPAIR, (AF_UNIX, STREAM | CLOEXEC), 0),
    ("a pair of packets", calls.SOCKETPAIR, (AF_UNIX, SEQPACKET), 0),
    ("a pair of datagrams", calls.SOCKETPAIR, (AF_UNIX, DGRAM), EPERM),
    ("a pair on a network", calls.SOCKETPAIR, (AF_INET, STREAM), EPERM),
    ("a signal to itself", calls.KILL, (PID, 15), 0),
    ("a signal to another", calls.KILL, (PID + 1, 0), EPERM),
    ("a signal to its group", calls.KILL, (0, 15), EPERM),
    ("a signal to all", calls.KILL, (-1, 9), EPERM),
    ("a signal to a thread of its own", calls.TGKILL, (PID, PID + 3, 6), 0),
    ("a signal to a thread of another", calls.TGKILL, (1, 1, 6), EPERM),
    ("its own limits", calls.PRLIMIT64, (0, 7), 0),
    ("another's limits", calls.PRLIMIT64, (1, 7), EPERM),
    ("its own processors", calls.SCHED_SETAFFINITY, (0,), 0),
    ("another's processors", calls.SCHED_SETAFFINITY, (1,), EPERM),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("what", "call", "arguments", "expected"), ARGUMENTS)
def test_an_argument_decides(
    machine: Machine, what: str, call: Numbers, arguments: tuple[int, ...], expected: int
) -> None:
    assert ask(machine, call, *arguments) == expected, what


def test_with_a_gpu_memory_may_be_shared() -> None:
    assert ask("x86_64", calls.MMAP, 0, 4096, 3, 0x21, gpu=True) == 0
    assert ask("x86_64", calls.REFUSED_WITHOUT_GPU["memfd_create"], gpu=True) == 0


@pytest.mark.parametrize("machine", MACHINES)
def test_with_a_gpu_a_local_socket_may_listen_and_reach_nobody(machine: Machine) -> None:
    """CUDA does not start without it."""
    assert ask(machine, calls.SOCKET, AF_UNIX, SEQPACKET | CLOEXEC, gpu=True) == 0
    assert ask(machine, calls.REFUSED_WITHOUT_GPU["bind"], gpu=True) == 0
    assert ask(machine, calls.SOCKET, AF_UNIX, DGRAM, gpu=True) == EPERM
    assert ask(machine, calls.SOCKET, AF_INET, STREAM, gpu=True) == EPERM
    assert ask(machine, calls.REFUSED["connect"], gpu=True) == EPERM
    assert ask(machine, calls.SOCKET, AF_UNIX, SEQPACKET) == EPERM
    assert ask(machine, calls.REFUSED_WITHOUT_GPU["bind"]) == EPERM


def test_a_jump_too_far_is_refused() -> None:
    far: list[Step | Place] = [Step(seccomp.JUMP_EQUAL, 1, "end")]
    far += [Step(seccomp.LOAD, 0)] * 256
    far += [Place("end"), Step(seccomp.RETURN, 0)]
    with pytest.raises(ValueError, match="found"):
        assemble(far)


def test_the_program_is_short() -> None:
    assert len(program(Scope("x86_64", PID, gpu=False))) // seccomp.INSTRUCTION.size < 200


# --- the kernel's own opinion -----------------------------------------------------------------


def in_a_filtered_process(attempt: Callable[[], object]) -> int:
    """Fork, filter, attempt; the error number, 0 for none."""
    machine = seccomp.this_machine()
    if machine is None:
        pytest.skip("no filter is written for this processor")
    child = os.fork()
    if child == 0:
        status = 255
        try:
            ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
            seccomp.apply(program(Scope(machine, os.getpid(), gpu=False)))
            attempt()
            status = 0
        except OSError as error:
            status = error.errno or 254
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking warns where threads may run")
@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        (lambda: os.kill(os.getpid(), 0), 0),
        (lambda: os.kill(os.getppid(), 0), EPERM),
        (socket.socket, EPERM),
        (socket.socketpair, 0),
        (os.fork, EPERM),
        (lambda: os.execv("/bin/true", ["true"]), EPERM),
        (lambda: os.memfd_create("x"), EPERM),
        (lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)), 0),
    ],
)
def test_the_kernel_answers_like_the_interpreter(
    attempt: Callable[[], object], expected: int
) -> None:
    assert in_a_filtered_process(attempt) == expected
