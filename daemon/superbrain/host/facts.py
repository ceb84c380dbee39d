"""What the operating system says about a process and about this machine (psutil).

psutil tells CPU use since the last call on the same object, so the objects are kept between calls;
the first CPU figure of a process is 0.0. Who asks again within a second gets the same figure: that
of a few milliseconds would say nothing.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from superbrain.domain.health import HostFacts, ProcessFacts

_PROCESSES_KEPT = 256
_CPU_OVER_S = 1.0


class _CpuMeter:
    """CPU use in percent, over a second at least."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._percent = read()
        self._read_at = time.monotonic()

    def percent(self) -> float:
        now = time.monotonic()
        if now - self._read_at >= _CPU_OVER_S:
            self._percent, self._read_at = self._read(), now
        return self._percent


def process_facts(pid: int) -> ProcessFacts | None:
    """The figures of process `pid`; None when there is none, or only its zombie."""
    try:
        # The start time tells a process from a later one that was given the same number.
        process = _process(pid, psutil.Process(pid).create_time())
        with process.oneshot():
            return None if process.status() == psutil.STATUS_ZOMBIE else _read(process)
    except psutil.Error:
        return None


class Held(NamedTuple):
    """What a process holds for itself; memory without what it shares, files and shared memory."""

    memory_bytes: int
    descriptors: int | None
    threads: int


def held_by(pid: int) -> Held | None:
    """What process `pid` holds for itself; None when there is none."""
    try:
        process = _process(pid, psutil.Process(pid).create_time())
        with process.oneshot():
            memory = process.memory_info()
            private = max(0, memory.rss - getattr(memory, "shared", 0))
            return Held(private, _open_files(process), process.num_threads())
    except psutil.Error:
        return None


def host_facts(store_path: Path) -> HostFacts:
    """The figures of this machine; the disk is the one that holds `store_path`, or will hold it."""
    system = os.uname()
    memory = psutil.virtual_memory()
    disk_total, disk_free = _disk_bytes(store_path)
    return HostFacts(
        hostname=system.nodename,
        kernel=f"{system.sysname} {system.release} {system.machine}",
        cpu_count=os.cpu_count() or 1,
        cpu_percent=_host_cpu().percent(),
        load_1m=_load_1m(),
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_total_bytes=disk_total,
        disk_free_bytes=disk_free,
        boot_time=_utc(psutil.boot_time()),
    )


def memory_total_bytes() -> int:
    """The memory of this machine."""
    return int(psutil.virtual_memory().total)


@functools.lru_cache(maxsize=_PROCESSES_KEPT)
def _process(pid: int, _started: float) -> psutil.Process:
    return psutil.Process(pid)


@functools.lru_cache(maxsize=_PROCESSES_KEPT)
def _process_cpu(process: psutil.Process) -> _CpuMeter:
    return _CpuMeter(process.cpu_percent)


@functools.cache
def _host_cpu() -> _CpuMeter:
    return _CpuMeter(psutil.cpu_percent)


def _read(process: psutil.Process) -> ProcessFacts:
    return ProcessFacts(
        pid=process.pid,
        started_at=_utc(process.create_time()),
        rss_bytes=process.memory_info().rss,
        cpu_percent=_process_cpu(process).percent(),
        threads=process.num_threads(),
        open_files=_open_files(process),
        cpu_seconds=sum(process.cpu_times()[:2]),
    )


def _open_files(process: psutil.Process) -> int | None:
    try:
        return process.num_fds()
    except psutil.AccessDenied:
        return None  # a process of another user


def _disk_bytes(path: Path) -> tuple[int, int]:
    """Total and free bytes where `path` lies; a path that is not there yet lies in its parent."""
    path = path.absolute()
    for place in (path, *path.parents):
        try:
            usage = psutil.disk_usage(os.fspath(place))
        except OSError:
            continue
        return usage.total, usage.free
    return 0, 0


def _load_1m() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
