"""Notifications as a service manager receives them, over real datagram sockets."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from superbrain.app.config import load_config
from superbrain.app.daemon import Daemon
from superbrain.deploy.host_clock import HostClock
from superbrain.deploy.journal import Journal
from superbrain.deploy.journal_file import JournalError
from superbrain.deploy.trust_keeper import TrustKeeper
from superbrain.host import notify
from superbrain.host.audit_log import AuditLog
from tests.support.bundles import make_trust_folder, sign_key

pytestmark = pytest.mark.integration


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    name = f"superbrain-test-{os.getpid()}"
    address = str(tmp_path / "notify") if request.param == "path" else f"\0{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        yield manager


MESSAGES: dict[str, tuple[Callable[[], bool], str]] = {
    "ready": (notify.ready, r"READY=1"),
    "ready with status": (lambda: notify.ready("2 models"), r"READY=1\nSTATUS=2 models"),
    "alive": (notify.alive, r"WATCHDOG=1"),
    "alive with status in one line": (
        lambda: notify.alive("two\n models"),
        r"WATCHDOG=1\nSTATUS=two models",
    ),
    "more time": (lambda: notify.still_starting(1.5), r"EXTEND_TIMEOUT_USEC=1500000"),
    "reloading": (notify.reloading, r"RELOADING=1\nMONOTONIC_USEC=\d+"),
    "stopping": (notify.stopping, r"STOPPING=1"),
}


@pytest.mark.parametrize(("send", "expected"), MESSAGES.values(), ids=MESSAGES.keys())
def test_the_manager_receives_one_datagram(
    manager: socket.socket, send: Callable[[], bool], expected: str
) -> None:
    assert send()
    assert re.fullmatch(expected, manager.recv(4096).decode())


def test_a_manager_that_has_gone_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify.alive()


def test_every_beat_feeds_the_watchdog_and_the_status_goes_with_it_when_it_has_changed(
    manager: socket.socket,
) -> None:
    heartbeat = notify.Heartbeat()
    for line in ("one", "one", "two"):
        assert heartbeat.beat(line)
    received = [manager.recv(4096).decode() for _ in range(3)]
    assert received == ["WATCHDOG=1\nSTATUS=one", "WATCHDOG=1", "WATCHDOG=1\nSTATUS=two"]


def test_a_status_that_did_not_arrive_is_told_again(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat, address = notify.Heartbeat(), os.environ["NOTIFY_SOCKET"]
    monkeypatch.setenv("NOTIFY_SOCKET", "/nobody")
    assert not heartbeat.beat("one")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert heartbeat.beat("one")
    assert manager.recv(4096) == b"WATCHDOG=1\nSTATUS=one"


def test_a_reload_that_fails_is_over_all_the_same(manager: socket.socket, tmp_path: Path) -> None:
    daemon = Daemon(load_config(None, tmp_path), lambda: load_config(None, tmp_path))
    journal = Journal(tmp_path / "journal.sqlite")
    daemon._audit = AuditLog(tmp_path)
    clock = HostClock(journal)
    daemon._keeper = TrustKeeper(tmp_path, tmp_path / "chains", journal, clock, daemon._audit)
    make_trust_folder(tmp_path, sign_key(tmp_path / "author"))
    journal.close()  # what the keeper looks for there cannot be read
    with pytest.raises(JournalError):
        asyncio.run(daemon._reload())
    received = [manager.recv(4096).decode() for _ in range(2)]
    assert received[0].startswith("RELOADING=1")
    assert received[1] == "READY=1"
