"""The audit trail on the disk: written through, rotated, shortened, cut, and on a full disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from superbrain.domain.audit import Action, Peer
from superbrain.host import audit_log
from superbrain.host.audit_log import AuditLog, older_files


def opened(folder: Path, **options: Any) -> AuditLog:  # noqa: ANN401 - passed on
    log = AuditLog(folder, **options)
    log.open()
    return log


def write(log: AuditLog, count: int) -> None:
    for number in range(count):
        log.write(Action.ORDER, f"order {number}", "done", peer=Peer(0, 0, 1))


def test_entries_survive_and_go_on_after_a_restart(tmp_path: Path) -> None:
    write(opened(tmp_path), 3)
    log = opened(tmp_path)
    write(log, 2)
    assert log.faults == []
    assert [entry.sequence for entry in log.newest(100)] == [6, 5, 4, 3, 2, 1]
    assert log.verify().faults == []
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_files_are_rotated_and_the_oldest_let_go_without_breaking_the_chain(
    tmp_path: Path,
) -> None:
    log = opened(tmp_path, max_bytes=1000, keep_files=3)
    write(log, 60)
    assert len(older_files(tmp_path)) == 3
    chain = log.verify()
    assert chain.faults == []
    assert chain.first > 1
    assert log.newest(5)[0].subject == "order 59"
    assert opened(tmp_path, max_bytes=1000, keep_files=3).faults == []


def test_a_missing_file_in_the_middle_shows(tmp_path: Path) -> None:
    log = opened(tmp_path, max_bytes=1000)
    write(log, 40)
    older_files(tmp_path)[1].unlink()
    assert log.verify().faults


HARM: dict[str, Callable[[bytes], bytes]] = {
    "an edit": lambda data: data.replace(b"order 1", b"order 7", 1),
    "a cut end": lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
    "everything": lambda _: b"",
    "a line in the middle": lambda data: data.replace(data.splitlines(keepends=True)[2], b"", 1),
    "no JSON": lambda data: b"hello\n" + data,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_harm_is_found_at_the_next_start_and_stays_in_the_trail(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    write(opened(tmp_path), 4)
    path = tmp_path / "audit.log"
    path.write_bytes(harm(path.read_bytes()))
    log = opened(tmp_path)
    assert log.faults
    assert any(entry.action == Action.TRAIL_BROKEN for entry in log.newest(10))
    write(log, 2)
    assert log.verify().faults


def test_a_trail_that_was_removed_is_missed_once_and_begins_anew(tmp_path: Path) -> None:
    write(opened(tmp_path), 4)
    (tmp_path / "audit.log").unlink()
    log = opened(tmp_path)
    (fault,) = log.faults
    assert "expected entries 1 to 5, found none" in fault
    again = opened(tmp_path)
    assert again.faults == []
    chain = again.verify()
    assert (chain.first, chain.faults) == (6, [])


def test_a_trail_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "audit.log").mkdir()
    log = opened(tmp_path)
    write(log, 2)
    (fault,) = log.faults
    assert "cannot be read" in fault
    assert "entries are not written yet" in log.trouble


def test_half_a_line_of_a_power_cut_is_no_harm(tmp_path: Path) -> None:
    write(opened(tmp_path), 2)
    with (tmp_path / "audit.log").open("ab") as file:
        file.write(b'{"sequence":4,"at"')
    log = opened(tmp_path)
    assert log.faults == []
    assert log.newest(1)[0].action == Action.ENTRIES_LOST
    assert log.verify().faults == []


def test_a_full_disk_loses_nothing_that_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    real = audit_log._append_line

    def full(path: Path, line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(audit_log, "_append_line", full)
    write(log, 3)
    assert "3 entries are not written yet" in log.trouble
    monkeypatch.setattr(audit_log, "MAX_WAITING", 3)
    write(log, 2)
    monkeypatch.setattr(audit_log, "_append_line", real)
    monkeypatch.setattr(audit_log, "MAX_WAITING", 1000)
    log.write(Action.RELOADED)
    assert log.trouble == ""
    found = [entry.action for entry in reversed(log.newest(10))]
    assert found[1:] == ["order"] * 3 + ["reloaded", "entries_lost"]
    assert log.newest(1)[0].detail == "2 could not be written"
    assert log.verify().faults == []


def test_a_line_that_was_written_in_part_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    write(log, 1)
    assert log.trouble
    monkeypatch.undo()
    write(log, 1)
    assert log.verify().faults == []
    assert len(log.newest(10)) == 3


def test_many_threads_make_one_chain(tmp_path: Path) -> None:
    log = opened(tmp_path, max_bytes=2000)
    threads = [threading.Thread(target=write, args=(log, 10)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chain = log.verify()
    assert (chain.faults, chain.entries) == ([], 41)
