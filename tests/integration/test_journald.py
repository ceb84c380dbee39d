"""Log records as a journal receives them, over a real datagram socket."""

from __future__ import annotations

import array
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.host import journald, logs
from superbrain.host.events import Event

pytestmark = pytest.mark.integration
LOGGER = logging.getLogger("superbrain.test.journald")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.settimeout(5)
        journal.bind(str(tmp_path / "socket"))
        monkeypatch.setattr(journald, "SOCKET", tmp_path / "socket")
        yield journal


def test_a_record_arrives_as_one_datagram(journal: socket.socket) -> None:
    assert journald.send(6, {"event": "daemon_ready", "model": "ocr"}, Path(journal.getsockname()))
    assert b"SUPERBRAIN_MODEL=ocr\n" in journal.recv(1 << 16)


def test_a_record_too_large_for_a_datagram_travels_as_a_sealed_file(
    journal: socket.socket,
) -> None:
    large = "x" * (4 << 20)
    assert journald.send(6, {"event": "log", "large": large}, Path(journal.getsockname()))
    _, controls, _, _ = journal.recvmsg(16, socket.CMSG_SPACE(4))
    (fd,) = array.array("i", controls[0][2])
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        assert large.encode() in file.read()


def test_a_process_whose_standard_error_is_the_journal_sends_fields(
    journal: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with (tmp_path / "stderr").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        try:
            logs.configure("info", stream)
            logs.event(LOGGER, Event.WORKER_DIED, logging.WARNING, model="ocr")
            journal_took = journal.recv(1 << 16)
            Path(journal.getsockname()).unlink()  # a journal that restarts
            logs.event(LOGGER, Event.WORKER_DIED, logging.WARNING, model="asr")
        finally:
            root.handlers[:], root.level = before
            logging.captureWarnings(capture=False)
        stream.flush()
        written = (tmp_path / "stderr").read_text()
    assert b"SUPERBRAIN_EVENT=worker_died\n" in journal_took
    assert written.startswith('<4>{"at"')
    assert '"model":"asr"' in written
    assert "ocr" not in written
