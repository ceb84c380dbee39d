"""Where the gateway is, and the sentences when it is not there."""

from __future__ import annotations

import errno
import grp
import os
import socket
from pathlib import Path

import pytest

from superbrain.client.endpoint import DEFAULT_ENDPOINT, choose_endpoint, probe
from superbrain.wire.errors import InvalidArgument, Unavailable


def test_the_argument_comes_before_the_environment_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SUPERBRAIN_ENDPOINT", raising=False)
    assert choose_endpoint(None) == DEFAULT_ENDPOINT
    monkeypatch.setenv("SUPERBRAIN_ENDPOINT", "ipc:///from/environment")
    assert choose_endpoint(None) == "ipc:///from/environment"
    assert choose_endpoint("tcp://host:5555") == "tcp://host:5555"


@pytest.mark.parametrize(
    "endpoint", ["ipc://", "inproc://x", "host:5555", "tcp://host", "tcp://:5", "tcp://h:0", "x"]
)
def test_anything_else_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match="expected an endpoint like"):
        choose_endpoint(endpoint)


def test_a_listening_path_passes(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        for _ in range(3):  # also with a full backlog
            probe(f"ipc://{tmp_path}/s")


def test_a_path_that_is_not_there_asks_for_the_daemon(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no superbrain gateway answers at ipc://") as caught:
        probe(f"ipc://{tmp_path}/s")
    assert "systemctl status superbraind" in caught.value.mend


def test_a_socket_that_outlived_its_owner_is_told_apart(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    with pytest.raises(Unavailable, match="Connection refused"):
        probe(f"ipc://{tmp_path}/s")


def test_a_refused_permission_names_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EACCES)
    group = grp.getgrgid(tmp_path.stat().st_gid).gr_name
    for mode, mend in ((0o750, f"usermod -aG {group}"), (0o700, "set [serve] group")):
        tmp_path.chmod(mode)
        with pytest.raises(Unavailable, match=f"user with id {os.geteuid()} may not") as caught:
            probe(f"ipc://{tmp_path}/s")
        assert mend in caught.value.mend


def test_a_path_too_long_for_a_socket_is_a_sentence() -> None:
    with pytest.raises(Unavailable, match="too long"):
        probe("ipc:///" + "x" * 200)


def test_a_closed_port_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match=f"tcp://127.0.0.1:{port}"):
        probe(f"tcp://127.0.0.1:{port}")
