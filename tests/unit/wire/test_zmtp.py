"""ZMTP without a socket: greeting, commands, frames in any pieces, and what is not ZMTP."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.wire import zmtp
from superbrain.wire.zmtp import Decoder, Message, ZmtpError

DEALER = zmtp.encode_command(b"READY", b"\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\0")
HELLO = zmtp.GREETING + DEALER


def wire(*messages: list[bytes]) -> bytes:
    return b"".join(bytes(data) for message in messages for data in zmtp.encode(message))


def greeted(max_frames: int = 10, max_bytes: int = 1 << 20) -> Decoder:
    decoder = Decoder(max_frames, max_bytes)
    assert decoder.feed(HELLO) == []
    decoder.replies.clear()
    return decoder


def plain(messages: list[Message]) -> list[list[bytes | None]]:
    return [[None if frame is None else bytes(frame) for frame in frames] for frames in messages]


def pour(decoder: Decoder, data: bytes, sizes: list[int]) -> list[Message]:
    """Hand `data` over in pieces of these sizes, over and over, as a socket would."""
    messages: list[Message] = []
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(data):
            return messages
        room = decoder.room
        if room is None:
            piece = data[position : position + size]
            messages += decoder.feed(piece)
        else:
            piece = data[position : position + min(size, len(room))]
            room[: len(piece)] = piece
            messages += decoder.filled(len(piece))
        position += len(piece)
    return messages


def test_the_greeting_is_the_one_of_the_specification() -> None:
    assert len(zmtp.GREETING) == 64
    assert zmtp.GREETING[:12] == b"\xff\0\0\0\0\0\0\0\1\x7f\3\1"
    assert zmtp.GREETING[12:] == b"NULL" + bytes(48)


def test_a_greeting_is_answered_with_ready_that_names_a_router() -> None:
    decoder = Decoder(10, 100)
    assert decoder.feed(zmtp.GREETING) == []
    assert decoder.replies == [b"\4\x1c\5READY\x0bSocket-Type\0\0\0\6ROUTER"]


def test_messages_may_come_in_the_same_bytes_as_the_greeting() -> None:
    assert plain(Decoder(10, 100).feed(HELLO + wire([b"a", b""]))) == [[b"a", b""]]


@given(
    st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=5),
    st.lists(st.integers(1, 100), min_size=1, max_size=5),
)
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    messages: list[list[bytes]], sizes: list[int]
) -> None:
    found = pour(Decoder(10, 1 << 20), HELLO + wire(*messages), sizes)
    assert plain(found) == messages


@pytest.mark.parametrize("size", [255, 256, 8191, 8192, zmtp.OWN_MEMORY_BYTES, 300_000])
@pytest.mark.parametrize("piece", [1000, 65536])
def test_frames_of_every_length_survive(size: int, piece: int) -> None:
    message = [b"head", bytes(i % 251 for i in range(size)), b"tail"]
    assert plain(pour(greeted(), wire(message, message), [piece])) == [message, message]


def test_a_large_part_is_not_copied_for_sending() -> None:
    large = bytes(100_000)
    assert any(buffer is large for buffer in zmtp.encode([b"a", large]))


def test_of_a_message_with_too_many_frames_the_rest_is_dropped() -> None:
    found = plain(greeted(max_frames=3).feed(wire([b"1", b"2", b"3", b"4", b"5"], [b"next"])))
    assert found == [[b"1", b"2", None], [b"next"]]


def test_of_a_message_with_too_many_bytes_the_rest_is_dropped() -> None:
    found = plain(greeted(max_bytes=100).feed(wire([b"1", bytes(90), bytes(90)], [b"next"])))
    assert found == [[b"1", None], [b"next"]]


def test_a_single_frame_beyond_the_limit_is_refused_before_it_comes() -> None:
    with pytest.raises(ZmtpError, match="at most 100 bytes, found 4294967296"):
        greeted(max_bytes=100).feed(b"\2" + (1 << 32).to_bytes(8, "big"))


def test_a_ping_is_answered_with_its_context() -> None:
    decoder = greeted()
    assert plain(decoder.feed(zmtp.encode_command(b"PING", b"\0\x64here") + wire([b"a"]))) == [
        [b"a"]
    ]
    assert decoder.replies == [zmtp.encode_command(b"PONG", b"here")]


def test_an_unknown_command_is_passed_over() -> None:
    decoder = greeted()
    assert plain(decoder.feed(zmtp.encode_command(b"NOVELTY", b"?") + wire([b"a"]))) == [[b"a"]]
    assert decoder.replies == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "the signature of ZMTP"),
        (b"\xff\0\0\0\0\0\0\0\1\x7e", "the signature of ZMTP"),
        (b"\xff\0\0\0\0\0\0\0\1\x7f\1", "libzmq 4.0 or later"),
        (zmtp.GREETING.replace(b"NULL", b"PLAIN")[:64], "the security mechanism NULL"),
        (zmtp.GREETING + wire([b"no command"]), "READY behind the greeting"),
        (zmtp.GREETING + zmtp.encode_command(b"ERROR", b"\0"), "command READY"),
        (zmtp.GREETING + zmtp.encode_command(b"READY"), "type REQ or DEALER, found b''"),
        (zmtp.GREETING + DEALER.replace(b"DEALER", b"PUBSUB"), "found b'PUBSUB'"),
        (zmtp.GREETING + b"\6" + (1 << 40).to_bytes(8, "big"), "READY behind the greeting"),
        (HELLO + b"\x08\0", "flags 0x8"),
        (HELLO + b"\6" + (1 << 19).to_bytes(8, "big"), "a frame of at most"),
    ],
)
def test_what_is_no_zmtp_3_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ZmtpError, match=reason):
        Decoder(10, 1 << 20).feed(data)


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 40))
def test_nothing_a_peer_sends_does_more_than_end_its_connection(
    data: bytes, behind_hello: bool, piece: int
) -> None:
    try:
        pour(Decoder(4, 1000), HELLO * behind_hello + data, [piece])
    except ZmtpError:
        return
