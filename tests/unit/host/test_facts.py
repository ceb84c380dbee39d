"""Figures of this process and this machine."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from superbrain.host import facts as facts_module
from superbrain.host import processors
from superbrain.host.facts import held_by, host_facts, process_facts


def test_this_process_has_memory_threads_and_open_files() -> None:
    facts = process_facts(os.getpid())
    assert facts is not None
    assert facts.pid == os.getpid()
    assert (facts.rss_bytes or 0) > 1 << 20
    assert (facts.threads or 0) >= 1
    assert (facts.open_files or 0) >= 1


def test_who_asks_again_at_once_gets_the_same_cpu_use() -> None:
    first, second = process_facts(os.getpid()), process_facts(os.getpid())
    assert first is not None
    assert second is not None
    assert first.cpu_percent == second.cpu_percent


def test_cpu_use_is_measured_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_module, "_CPU_OVER_S", 0.0)
    process_facts(os.getpid())
    before = os.times()
    while os.times().user - before.user < 0.05:
        sum(range(10_000))
    facts = process_facts(os.getpid())
    assert facts is not None
    assert (facts.cpu_percent or 0.0) > 0.0
    assert (facts.cpu_seconds or 0.0) > 0.05


def test_one_report_reads_each_process_once_and_the_processors_once_a_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read: list[str] = []
    real = facts_module._content

    def content(path: str) -> bytes:
        read.append(path)
        return real(path)

    host_facts(tmp_path)
    counted = processors._reader()._read_at
    monkeypatch.setattr(facts_module, "_content", content)
    monkeypatch.setattr(processors, "READ_AGAIN_S", 1e9)
    for pid in (os.getpid(), os.getppid()):
        process_facts(pid)
    host_facts(tmp_path)
    assert read == [f"/proc/{os.getpid()}/stat", f"/proc/{os.getppid()}/stat", "/proc/meminfo"]
    assert processors._reader()._read_at == counted


def test_figures_are_those_that_psutil_tells() -> None:
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        facts, held, told = process_facts(child.pid), held_by(child.pid), psutil.Process(child.pid)
        assert facts is not None
        assert held is not None
        assert facts.started_at.timestamp() == pytest.approx(told.create_time(), abs=1.5)
        assert (facts.threads, facts.open_files) == (told.num_threads(), told.num_fds())
        assert (held.threads, held.descriptors) == (told.num_threads(), told.num_fds())
        memory = told.memory_info()
        assert facts.rss_bytes == pytest.approx(memory.rss, rel=0.1)
        assert held.memory_bytes == pytest.approx(memory.rss - memory.shared, rel=0.2)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        if child.stdin is not None:
            child.stdin.close()


def test_nobody_holds_anything_who_is_not_there() -> None:
    assert held_by(1 << 30) is None


def test_a_machine_is_as_psutil_tells_it(tmp_path: Path) -> None:
    facts, disk = host_facts(tmp_path), psutil.disk_usage(str(tmp_path))
    assert facts.memory_total_bytes == psutil.virtual_memory().total
    assert facts.memory_available_bytes == pytest.approx(
        psutil.virtual_memory().available, abs=1 << 30
    )
    assert facts.disk_total_bytes == disk.total
    assert facts.boot_time is not None
    assert facts.boot_time.timestamp() == pytest.approx(psutil.boot_time(), abs=1.5)


def test_start_time_is_in_utc_and_in_the_past() -> None:
    facts = process_facts(os.getpid())
    assert facts is not None
    assert facts.started_at.tzinfo is dt.UTC
    assert facts.started_at <= dt.datetime.now(dt.UTC)


def test_a_process_that_has_ended_has_no_figures() -> None:
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    child.wait()
    assert process_facts(child.pid) is None


def test_a_zombie_has_no_figures() -> None:
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert process_facts(child.pid) is None
    finally:
        child.wait()


def test_a_machine_has_memory_processors_and_a_disk(tmp_path: Path) -> None:
    facts = host_facts(tmp_path)
    assert facts.hostname == os.uname().nodename
    assert facts.cpu_count >= 1
    assert 0 < facts.memory_available_bytes <= facts.memory_total_bytes
    assert 0 < facts.disk_free_bytes <= facts.disk_total_bytes


def test_a_store_that_is_not_there_yet_lies_on_the_disk_of_its_parent(tmp_path: Path) -> None:
    there = host_facts(tmp_path)
    assert host_facts(tmp_path / "store" / "later").disk_total_bytes == there.disk_total_bytes
