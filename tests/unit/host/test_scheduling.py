"""Turns on the processor: what the kernel says of this process after each call."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading

import pytest

from superbrain.host import scheduling

_GETATTR = {"x86_64": 315, "aarch64": 275}
REPORT = """
import os, threading
from superbrain.host import scheduling
from tests.unit.host.test_scheduling import slice_ns

there, go = threading.Event(), threading.Event()
def wait():
    ids.append(threading.get_native_id())
    there.set()
    go.wait()
ids = []
thread = threading.Thread(target=wait)
thread.start()
there.wait()
print(slice_ns(0))
scheduling.give_way()
print(slice_ns(0), slice_ns(ids[0]))
scheduling.take_turns(os.getpid())
print(slice_ns(0), slice_ns(ids[0]))
go.set()
thread.join()
"""


def slice_ns(thread_id: int) -> int:
    """Ask the kernel for the slice of a thread; 0 where it tells none."""
    buffer = ctypes.create_string_buffer(scheduling._ATTRIBUTES.size)
    libc = ctypes.CDLL(None, use_errno=True)
    number = _GETATTR[platform.machine()]
    if libc.syscall(number, thread_id, buffer, len(buffer), 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    runtime: int = scheduling._ATTRIBUTES.unpack(buffer.raw)[5]
    return runtime


def kernel_has_slices() -> bool:
    major, minor = platform.release().split(".")[:2]
    return platform.machine() in _GETATTR and (int(major), int(minor)) >= (6, 12)


@pytest.mark.skipif(not kernel_has_slices(), reason="needs Linux 6.12, which tells a task's slice")
def test_every_thread_gives_way_and_takes_turns_again() -> None:
    told = subprocess.run(
        [sys.executable, "-c", REPORT], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    usual = told[0]
    longest = str(scheduling.LONGEST_SLICE_NS)
    assert told[1:] == [f"{longest} {longest}", f"{usual} {usual}"]
    assert usual != longest


def test_where_the_kernel_refuses_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(scheduling, "_set_slice", refuse)
    scheduling.give_way()
    assert threading.current_thread().is_alive()


def test_an_unknown_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(scheduling, "_set_slice", lambda *_: pytest.fail("called"))
    scheduling.take_turns(os.getpid())


STAND_BACK = """
import os
from superbrain.host import scheduling
scheduling.stand_back()
print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.getpriority(os.PRIO_PROCESS, 0))
print(len(os.sched_getaffinity(0)))
"""


def test_whoever_stands_back_runs_when_nobody_else_wants_to() -> None:
    command = [sys.executable, "-c", STAND_BACK]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        start_new_session=True,  # whose weight it lowers: not that of these tests
    )
    few = max(1, len(os.sched_getaffinity(0)) // 4)
    assert done.stdout.split() == ["True", "19", str(few)]


@pytest.mark.parametrize(
    ("processors", "few"),
    [({0}, {0}), ({0, 1}, {1}), ({2, 5, 3}, {5}), (set(range(16)), {12, 13, 14, 15})],
)
def test_it_keeps_to_a_quarter_of_the_processors(processors: set[int], few: set[int]) -> None:
    assert scheduling._few_of(processors) == few
