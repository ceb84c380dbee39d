"""What a worker is found to use: this process and a folder, looked at from outside."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from superbrain.host.usage import RunClock, scratch_usage, usage, waited_s


def test_memory_and_threads_of_a_process_are_counted() -> None:
    before = usage(os.getpid())
    pages = 64 << 8
    # Not `bytes`: what tests before this one have freed may be used for that.
    with mmap.mmap(-1, pages << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as kept:
        kept[:: 1 << 12] = b"x" * pages
        after = usage(os.getpid())
    assert after.memory_bytes - before.memory_bytes > 48 << 20
    assert after.threads >= 1


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert usage(1 << 30).memory_bytes == 0


def test_a_folder_is_counted_with_what_is_open_and_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one").write_bytes(b"x" * (1 << 20))
    (tmp_path / "loop").symlink_to(tmp_path)
    named = scratch_usage(tmp_path, os.getpid())
    assert named.entries == 3
    with (tmp_path / "two").open("wb") as file:
        file.write(b"x" * (4 << 20))
        file.flush()
        (tmp_path / "two").unlink()
        unnamed = scratch_usage(tmp_path, os.getpid())
    assert unnamed.entries == 3
    assert unnamed.scratch_bytes - named.scratch_bytes >= 3 << 20


def test_a_process_that_waits_has_not_run_and_one_that_works_has(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", "print(flush=True); input(); print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        clock = RunClock(child.pid, tmp_path / "no list")
        assert clock.has_run(), "nobody has looked before"
        rests = (not clock.has_run() for _ in iter(int, 1))  # until it has come to its input
        assert next(filter(None, rests))
        assert not clock.has_run()
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        assert clock.has_run()
        child.kill()


def test_a_process_whose_clock_cannot_be_read_has_run(tmp_path: Path) -> None:
    clock = RunClock(1 << 22, tmp_path / "no list")
    assert [clock.has_run() for _ in range(3)] == [True] * 3


def test_where_processors_run_without_ticks_every_process_has_run(tmp_path: Path) -> None:
    listed = tmp_path / "nohz_full"
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # its clock stands still
    try:
        told = {}
        for processors in ("2-7\n", "(null)\n", "\n"):
            listed.write_text(processors)
            clock = RunClock(child.pid, listed)
            told[processors] = [clock.has_run() for _ in range(2)]
    finally:
        child.wait()
    assert told == {"2-7\n": [True, True], "(null)\n": [True, False], "\n": [True, False]}


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this kernel does not count waits"
)
def test_who_waits_for_a_processor_is_told_from_who_waits_for_something_else() -> None:
    one = min(os.sched_getaffinity(0))
    works = f"import os; os.sched_setaffinity(0, {{{one}}}); print(flush=True)\nwhile True: pass"
    waits = "print(flush=True); input()"
    with contextlib.ExitStack() as stack:
        pids = []
        for source in (works, works, waits):
            command = [sys.executable, "-I", "-c", source]
            child = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            stack.callback(child.kill)
            assert child.stdout is not None
            child.stdout.readline()
            pids.append(child.pid)
        idle_s = waited_s(pids[2])
        assert any(waited_s(pids[0]) > idle_s + 0.05 for _ in iter(int, 1))
        assert waited_s(pids[1]) > 0.0
        assert waited_s(pids[2]) < idle_s + 0.05


def test_of_a_process_that_is_not_there_no_wait_is_told() -> None:
    assert waited_s(1 << 22) == 0.0
