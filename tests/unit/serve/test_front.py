"""Whoever comes is not taken for who has gone, though both have the same descriptor."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.serve.front import Front
from superbrain.serve.peer import Envelope, Peer
from superbrain.wire.messages import RESULT
from superbrain.wire.zmtp import GREETING, GREETING_BYTES


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with select.epoll() as epoll:
        front = Front(f"ipc://{tmp_path}/infer.sock", epoll)
        front.open()
        yield front
        for peer in list(front.peers.values()):
            peer.close()
        front._listener.close()


def connect(front: Front, path: Path) -> tuple[socket.socket, Peer]:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path / "infer.sock"))
    before = set(front.peers)
    front.accept()
    (fd,) = set(front.peers) - before
    return client, front.peers[fd]


def test_an_answer_to_who_has_gone_does_not_hang_up_on_who_has_come(
    front: Front, tmp_path: Path
) -> None:
    first, gone = connect(front, tmp_path)
    front.reply(Envelope(gone, []), RESULT, b"{}")
    first.close()
    front.receive(gone)
    second, come = connect(front, tmp_path)
    assert come.fd == gone.fd
    front.flush()
    assert front.peers == {come.fd: come}
    second.settimeout(5)
    second.sendall(GREETING)
    assert second.recv(GREETING_BYTES) == GREETING
    assert front.receive(come) == []
    assert not come.ended
    second.close()
