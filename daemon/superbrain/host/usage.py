"""What a worker uses of what its sandbox limits, as the kernel counts it in /proc.

Memory is what is private to the process: what callers share with it, and files that it merely has
mapped, are not its doing. Nothing here raises for a process that has just ended.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from superbrain.domain.sandbox import MAX_ENTRIES, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's are
_SCHEDULED = 2  # CPUCLOCK_SCHED: of the clocks of a process the one that counts nanoseconds
_TICKLESS = Path("/sys/devices/system/cpu/nohz_full")


class RunClock:
    """Tells whether a process has run since it was last asked about: one system call, no file.

    It goes by the processor time that the kernel counts for all threads together. Of one that runs
    at this moment the kernel counts at every tick, so a run that has just begun is seen the next
    time. Where it cannot be told, or late, because processors run without ticks, it has run.
    """

    def __init__(self, pid: int, tickless: Path = _TICKLESS) -> None:
        self._clock = (~pid << 3) | _SCHEDULED  # as clock_getcpuclockid(3) makes it
        self._ran_ns = -1
        self._lags = _any_processor(tickless)

    def has_run(self) -> bool:
        """Tell it, for the time since the last call; at the first one it has."""
        try:
            ran_ns = time.clock_gettime_ns(self._clock)
        except OSError:
            return True
        before, self._ran_ns = self._ran_ns, ran_ns
        return ran_ns != before or self._lags


def _any_processor(listed: Path) -> bool:
    """Whether one of the kernel's lists of processors names any; there may be no such list."""
    with suppress(OSError):
        return any(letter.isdigit() for letter in listed.read_text())
    return False


def waited_s(pid: int) -> float:
    """Give the seconds for which a process's first thread was ready, and no processor was free.

    0.0 when it has ended, or where the kernel does not count it.
    Source: /proc/PID/schedstat, in the kernel's Documentation/scheduler/sched-stats.rst.
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    return 0.0


def usage(pid: int) -> Usage:
    """Give memory and threads of a process; zeros when it has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:  # noqa: PTH123 - ten times a second
            status = file.read()
    except OSError:
        return Usage()
    memory = (_number(status, b"\nRssAnon:") + _number(status, b"\nVmSwap:")) << 10
    return Usage(memory_bytes=memory, threads=_number(status, b"\nThreads:"))


def scratch_usage(folder: Path, pid: int) -> Usage:
    """Give what a scratch folder holds, also in files that were unlinked and are still open."""
    size = entries = 0
    for status in _entries(folder):
        entries += 1
        size += status.st_blocks * _BLOCK_BYTES
        if entries > MAX_ENTRIES:
            break
    held = sum(one.st_blocks * _BLOCK_BYTES for one in _unlinked(pid))
    return Usage(scratch_bytes=size + held, entries=entries)


def _number(status: bytes, name: bytes) -> int:
    """Give a number of a process's status; 0 where it is not told."""
    begin = status.find(name)
    return int(status[begin + len(name) :].split(None, 1)[0]) if begin >= 0 else 0


def _entries(folder: Path) -> Iterator[os.stat_result]:
    """Every entry below a folder, without following links; what vanishes meanwhile is left out."""
    waiting = [os.fspath(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as found:
            for entry in found:
                with suppress(OSError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)


def _unlinked(pid: int) -> Iterator[os.stat_result]:
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names of descriptors
            with suppress(OSError):
                status = os.stat(f"{folder}/{name}")  # noqa: PTH116
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                    yield status
