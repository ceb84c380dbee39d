"""What the operating system says about a process and about this machine, as read from /proc.

The daemon asks every two seconds for as long as it lives, so each figure is read once, and nothing
that nobody wants.

CPU use is that since the last call, so what was counted then is kept; the first CPU figure of a
process is 0.0. Who asks again within a second gets the same figure: that of a few milliseconds
would say nothing.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import time
from pathlib import Path
from typing import NamedTuple

from superbrain.domain.health import HostFacts, ProcessFacts
from superbrain.host.processors import counters

_PROCESSES_KEPT = 256
_CPU_OVER_S = 1.0
_ZOMBIES = (b"Z", b"X")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat behind the name, as proc(5) counts them less three.
_STATE, _USER, _SYSTEM, _THREADS, _STARTED, _RESIDENT = 0, 11, 12, 17, 19, 21
_PAGES_RESIDENT, _PAGES_SHARED = 1, 2


class _CpuMeter:
    """The CPU use of one process in percent of a processor, over a second at least."""

    def __init__(self) -> None:
        self._percent = 0.0
        self._counted = (float("inf"), 0.0)

    def percent(self, cpu_seconds: float) -> float:
        now, (at, before) = time.monotonic(), self._counted
        if now - at >= _CPU_OVER_S:
            self._percent = round(100 * max(0.0, cpu_seconds - before) / (now - at), 1)
        if now - at >= _CPU_OVER_S or at > now:
            self._counted = (now, cpu_seconds)
        return self._percent


class _HostCpu:
    """The CPU use of this machine in percent of all its processors."""

    def __init__(self) -> None:
        self._percent = 0.0
        self._before = counters()

    def percent(self) -> float:
        now, before = counters(), self._before
        passed = now.total_s - before.total_s
        if passed > 0:
            busy = passed - (now.idle_s - before.idle_s)
            self._percent = round(min(max(100 * busy / passed, 0.0), 100.0), 1)
            self._before = now
        return self._percent


def process_facts(pid: int) -> ProcessFacts | None:
    """The figures of process `pid`; None when there is none, or only its zombie."""
    try:
        stat = _stat(pid)
        if stat[_STATE] in _ZOMBIES:
            return None
        started = int(stat[_STARTED])
        cpu_seconds = (int(stat[_USER]) + int(stat[_SYSTEM])) / _TICKS_PER_S
        return ProcessFacts(
            pid=pid,
            started_at=_utc(counters().booted_at + started / _TICKS_PER_S),
            rss_bytes=int(stat[_RESIDENT]) * _PAGE_BYTES,
            # The start time tells a process from a later one that was given the same number.
            cpu_percent=_process_cpu(pid, started).percent(cpu_seconds),
            threads=int(stat[_THREADS]),
            open_files=_open_files(pid),
            cpu_seconds=cpu_seconds,
        )
    except OSError:
        return None


class Held(NamedTuple):
    """What a process holds for itself; memory without what it shares, files and shared memory."""

    memory_bytes: int
    descriptors: int | None
    threads: int


def held_by(pid: int) -> Held | None:
    """What process `pid` holds for itself; None when there is none."""
    try:
        pages = _content(f"/proc/{pid}/statm").split()
        private = int(pages[_PAGES_RESIDENT]) - int(pages[_PAGES_SHARED])
        threads = int(_stat(pid)[_THREADS])
        return Held(max(0, private) * _PAGE_BYTES, _open_files(pid), threads)
    except OSError:
        return None


def host_facts(store_path: Path) -> HostFacts:
    """The figures of this machine; the disk is the one that holds `store_path`, or will hold it."""
    system = os.uname()
    memory_total, memory_available = _memory_bytes()
    disk_total, disk_free = _disk_bytes(store_path)
    return HostFacts(
        hostname=system.nodename,
        kernel=f"{system.sysname} {system.release} {system.machine}",
        cpu_count=os.cpu_count() or 1,
        cpu_percent=_host_cpu().percent(),
        load_1m=_load_1m(),
        memory_total_bytes=memory_total,
        memory_available_bytes=memory_available,
        disk_total_bytes=disk_total,
        disk_free_bytes=disk_free,
        boot_time=_utc(counters().booted_at),
    )


def memory_total_bytes() -> int:
    """The memory of this machine."""
    return _memory_bytes()[0]


@functools.lru_cache(maxsize=_PROCESSES_KEPT)
def _process_cpu(_pid: int, _started: int) -> _CpuMeter:
    return _CpuMeter()


@functools.cache
def _host_cpu() -> _HostCpu:
    return _HostCpu()


def _stat(pid: int) -> list[bytes]:
    """Give the fields of a process's figures; its name, before them, may hold anything."""
    content = _content(f"/proc/{pid}/stat")
    return content[content.rindex(b")") + 2 :].split()


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - asked for ever
        return file.read()


def _open_files(pid: int) -> int | None:
    """Count descriptors: since Linux 6.2 the size of their folder, before it its entries."""
    folder = f"/proc/{pid}/fd"
    try:
        return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208
    except PermissionError:
        return None  # a process of another user


def _memory_bytes() -> tuple[int, int]:
    """Total and available bytes of memory."""
    content = _content("/proc/meminfo")
    total, available = (
        int(content[content.index(name) + len(name) :].split(None, 1)[0]) << 10
        for name in (b"MemTotal:", b"MemAvailable:")
    )
    return total, min(available, total)


def _disk_bytes(path: Path) -> tuple[int, int]:
    """Total and free bytes where `path` lies; a path that is not there yet lies in its parent."""
    path = path.absolute()
    for place in (path, *path.parents):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return 0, 0


def _load_1m() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
