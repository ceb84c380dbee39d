"""What a client's frames mean: envelope, verb, header, tensors; and what is wrong with others."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from superbrain.serve.peer import ClientMessage, Malformed, Peer
from superbrain.wire import zmtp
from superbrain.wire.messages import MAX_HEADER_BYTES, MAX_TENSORS

PIECE_BYTES = 1 << 15
HELLO = zmtp.GREETING + zmtp.encode_command(b"READY", b"\x0bSocket-Type\0\0\0\6DEALER")


@pytest.fixture
def ends() -> Iterator[tuple[Peer, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    peer = Peer(ours)
    with theirs:
        assert theirs.recv(64) == zmtp.GREETING
        theirs.sendall(HELLO)
        assert peer.receive(memoryview(bytearray(1 << 16))) == []
        assert theirs.recv(100) == zmtp.READY
        yield peer, theirs
    peer.close()


def received(ends: tuple[Peer, socket.socket], frames: list[bytes]) -> ClientMessage | Malformed:
    peer, theirs = ends
    data = b"".join(bytes(part) for part in zmtp.encode(frames))
    messages: list[ClientMessage | Malformed] = []
    for start in range(0, len(data), PIECE_BYTES):  # as much as a socket's buffer surely takes
        theirs.sendall(data[start : start + PIECE_BYTES])
        messages += peer.receive(memoryview(bytearray(PIECE_BYTES)))
    (message,) = messages
    return message


@pytest.mark.parametrize("envelope", [[], [b""], [b"hop 1", b"hop 2", b""]])
def test_the_reply_bears_the_envelope_of_its_request(
    ends: tuple[Peer, socket.socket], envelope: list[bytes]
) -> None:
    message = received(ends, [*envelope, b"SB1I", b"{}", b"tensor"])
    assert isinstance(message, ClientMessage)
    assert (message.verb, message.header, message.tensors) == (b"I", b"{}", [b"tensor"])
    assert message.envelope.frames == envelope


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"hello"], "one verb, found b'hello'"),
        ([b""], "one verb, found b''"),
        ([b"", b"SB2I", b"{}"], "one verb, found b'SB2I'"),
        ([b"SB1", b"{}"], "one verb, found b'SB1'"),
        ([*[b"hop"] * 20, b"", b"SB1I", b"{}"], "one verb, found b'hop'"),
        ([b"SB1I"], "a JSON header frame behind the verb"),
        ([b"SB1I", bytes(MAX_HEADER_BYTES + 1)], "a header of at most"),
        ([b"SB1I", b"{}", *[b""] * (MAX_TENSORS + 1)], "at most 1024 tensor frames"),
        ([b"SB1I", b"{}", *[b""] * (MAX_TENSORS + 100)], "at most 1024 tensor frames"),
    ],
)
def test_what_is_no_message_of_the_protocol_is_answered_in_words(
    ends: tuple[Peer, socket.socket], frames: list[bytes], reason: str
) -> None:
    message = received(ends, frames)
    assert isinstance(message, Malformed)
    assert reason in message.message


def test_a_client_that_leaves_much_unread_is_not_patient(ends: tuple[Peer, socket.socket]) -> None:
    peer, _ = ends
    assert peer.patient
    peer.send([bytes(64 << 20)])
    assert not peer.patient


def test_the_end_of_a_client_is_seen_behind_its_last_message(
    ends: tuple[Peer, socket.socket],
) -> None:
    peer, theirs = ends
    theirs.sendall(b"".join(bytes(data) for data in zmtp.encode([b"SB1H", b"{}"])))
    theirs.close()
    assert len(peer.receive(memoryview(bytearray(100)))) == 1
    assert peer.receive(memoryview(bytearray(100))) == []
    assert peer.ended
