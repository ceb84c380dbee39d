"""Whoever comes is not taken for who has gone, though both have the same descriptor."""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.serve.front import HANDSHAKE_S, Front
from superbrain.serve.peer import Envelope, Peer
from superbrain.wire.messages import RESULT
from superbrain.wire.zmtp import GREETING, GREETING_BYTES, encode, encode_command


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


def test_who_never_shakes_hands_is_let_go_in_time_and_nobody_else(
    front: Front, tmp_path: Path
) -> None:
    silent, _ = connect(front, tmp_path)
    speaking, peer = connect(front, tmp_path)
    speaking.sendall(GREETING + encode_command(b"READY", b"\x0bSocket-Type\0\0\0\3REQ"))
    assert front.receive(peer) == []
    now = time.monotonic()
    front.hang_up_on_the_silent(now)
    assert len(front.peers) == 2
    front.hang_up_on_the_silent(now + HANDSHAKE_S)
    assert list(front.peers.values()) == [peer]
    front.hang_up_on_the_silent(now + 100 * HANDSHAKE_S)
    assert list(front.peers.values()) == [peer]
    silent.close()
    speaking.close()


def test_what_a_client_sent_before_it_went_is_not_handed_on(front: Front, tmp_path: Path) -> None:
    gone: list[Peer] = []
    front.on_gone = gone.append
    client, peer = connect(front, tmp_path)
    ready = encode_command(b"READY", b"\x0bSocket-Type\0\0\0\3REQ")
    client.sendall(GREETING + ready + b"".join(map(bytes, encode([b"", b"SB1H", b"{}"]))))
    client.close()
    while not peer.ended:
        assert not any(front.receive(peer)) or not peer.ended
    assert gone == [peer]


def test_the_socket_is_for_its_owner_and_the_group_alone(tmp_path: Path) -> None:
    with select.epoll() as epoll:
        front = Front(f"ipc://{tmp_path}/infer.sock", epoll, os.getegid())
        found = (tmp_path / "infer.sock").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, os.getegid())
        front._listener.close()
