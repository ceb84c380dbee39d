"""ZMTP 3.1, the wire protocol of ZeroMQ, as a ROUTER without identities speaks it.

Its clients are REQ and DEALER sockets. What travels on a connection:

    greeting (64 bytes each way) · READY (each way) · messages of one or more frames

A frame is a byte of flags, its length (one byte, or eight with LONG, most significant first) and
that many bytes. A command is a frame with COMMAND: READY after the greeting, PING and PONG later.
Only the mechanism NULL is spoken here: who may connect is decided by the permissions of the socket.

This module does no I/O: `Decoder` turns received bytes into messages, `encode` gives the buffers of
one. Source: https://rfc.zeromq.org/spec/37/ (ZMTP/3.1), https://rfc.zeromq.org/spec/23/ (ZMTP/3.0).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Data = bytes | memoryview
Message = list[Data | None]  # None in place of a frame that was too much
_Step = Callable[["Decoder", bytes, int, list[Message]], int]

MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4

GREETING_BYTES: Final = 64
_SIGNATURE = b"\xff\0\0\0\0\0\0\0\1\x7f"
GREETING = (_SIGNATURE + b"\3\1NULL").ljust(GREETING_BYTES, b"\0")
_MECHANISM = slice(12, 32)
_OLDEST_MAJOR: Final = 3
_LONG_HEAD = struct.Struct(">BQ")
_SHORT_LIMIT: Final = 256
CLIENTS: Final = (b"REQ", b"DEALER")
# A frame this large that is not whole yet gets memory of its own, which the kernel then fills.
OWN_MEMORY_BYTES: Final = 1 << 15
_MAX_COMMAND_BYTES: Final = 1 << 12
_JOINED_BELOW_BYTES: Final = 1 << 13
# Heads of short frames: the last of a message, and one that more follow.
_LAST_HEADS = tuple(bytes((0, size)) for size in range(_SHORT_LIMIT))
_MORE_HEADS = tuple(bytes((MORE, size)) for size in range(_SHORT_LIMIT))


class ZmtpError(SuperbrainError):
    """The peer does not speak ZMTP 3 as it must here; the connection cannot be used any further."""


def encode(parts: Sequence[Data]) -> list[Data]:
    """Give the buffers of one message, ready for `socket.sendmsg`; large parts are not copied."""
    buffers: list[Data] = []
    joined: list[Data] = []
    last = len(parts) - 1
    for index, part in enumerate(parts):
        size = len(part)
        if size < _SHORT_LIMIT:
            joined += ((_MORE_HEADS if index < last else _LAST_HEADS)[size], part)
            continue
        joined.append(_LONG_HEAD.pack(LONG | MORE if index < last else LONG, size))
        if size < _JOINED_BELOW_BYTES:
            joined.append(part)
        else:
            buffers += (b"".join(joined), part)
            joined = []
    if joined:
        buffers.append(b"".join(joined))
    return buffers


def encode_command(name: bytes, body: bytes = b"") -> bytes:
    """Give the bytes of one command of less than 256 bytes."""
    content = bytes((len(name),)) + name + body
    return bytes((COMMAND, len(content))) + content


READY = encode_command(b"READY", b"\x0bSocket-Type\0\0\0\6ROUTER")


class Decoder:
    """Turns what one peer sends into messages: lists of frames.

    Receive into `room` while it is not None, else anywhere; hand over what came with `filled` or
    `feed`; send `replies` (greeting, READY, PONG) and clear it. Of a message beyond the limits the
    rest is read and dropped: it comes out with `None` in place of what was too much.

    Args:
        max_frames: of one message.
        max_bytes: of one frame, and of all frames of a message together.
        peers: socket types that may be at the other end.
        ready: the READY command that answers a greeting; empty when it is sent without being asked.

    Attributes:
        greeted: the peer has finished its handshake.
    """

    def __init__(
        self,
        max_frames: int,
        max_bytes: int,
        *,
        peers: Collection[bytes] = CLIENTS,
        ready: bytes = READY,
    ) -> None:
        self.greeted = False
        self._peers = peers
        self._ready = ready
        self.replies: list[bytes] = []
        self.room: memoryview | None = None
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._rest = b""
        self._frames: Message = []
        self._bytes = 0
        self._large: memoryview | None = None
        self._large_flags = 0
        self._take: _Step = Decoder._take_greeting  # not bound, or it would lead back here

    def filled(self, count: int) -> list[Message]:
        """Take note of `count` bytes received into `room`; give the message that is now whole."""
        assert self.room is not None  # noqa: S101 - the caller's own order of things
        assert self._large is not None  # noqa: S101
        messages: list[Message] = []
        self.room = self.room[count:] if count < len(self.room) else None
        if self.room is None:
            large, self._large = self._large, None
            self._keep(large, self._large_flags, messages)
        return messages

    def feed(self, data: bytes) -> list[Message]:
        """Take in received bytes; give the messages that are now whole.

        Raises:
            ZmtpError: they are no ZMTP 3, or a single frame beyond `max_bytes`.
        """
        messages: list[Message] = []
        if self._rest:
            data = self._rest + data
        used = -1
        position = 0
        while used and position < len(data):
            used = self._take(self, data, position, messages)
            position += used
        self._rest = data[position:]
        return messages

    @property
    def between_messages(self) -> bool:
        """Whether the handshake is done, and no part of a message has come that is not whole."""
        return self.greeted and not (self._rest or self._frames or self.room is not None)

    # Each of these consumes what it can at `position` and gives how many bytes; 0: more is needed.

    def _take_greeting(self, data: bytes, _start: int, _: list[Message]) -> int:
        if data[0] != _SIGNATURE[0] or (len(data) > 9 and data[9] != _SIGNATURE[9]):
            raise ZmtpError(f"expected the signature of ZMTP, found {data[:10]!r}")
        if len(data) > 10 and data[10] < _OLDEST_MAJOR:
            raise ZmtpError(
                f"expected ZMTP 3 (libzmq 4.0 or later), found version {data[10]}",
                mend="Update the client's ZeroMQ library",
            )
        if len(data) < GREETING_BYTES:
            return 0
        mechanism = data[_MECHANISM].rstrip(b"\0")
        if mechanism != b"NULL":
            raise ZmtpError(f"expected the security mechanism NULL, found {mechanism!r}")
        if self._ready:
            self.replies.append(self._ready)
        self._take = Decoder._take_ready
        return GREETING_BYTES

    def _take_ready(self, data: bytes, position: int, _: list[Message]) -> int:
        head = _head(data, position)
        if head is None:
            return 0
        flags, size, start = head
        if not flags & COMMAND or size > _MAX_COMMAND_BYTES:
            raise ZmtpError("expected the command READY behind the greeting, found another frame")
        if start + size > len(data):
            return 0
        kind = _socket_type(data[start : start + size])
        if kind not in self._peers:
            expected = " or ".join(peer.decode() for peer in self._peers)
            raise ZmtpError(f"expected a socket of type {expected}, found {kind!r}")
        self.greeted = True
        self._take = Decoder._take_frame
        return start + size - position

    def _take_frame(self, data: bytes, position: int, messages: list[Message]) -> int:
        head = _head(data, position)
        if head is None:
            return 0
        flags, size, start = head
        end = start + size
        if end <= len(data):
            if flags & COMMAND:
                self._command(data[start:end])
            else:
                self._keep(data[start:end], flags, messages)
            return end - position
        if size > self._max_bytes or (flags & COMMAND and size > _MAX_COMMAND_BYTES):
            raise ZmtpError(f"expected a frame of at most {self._max_bytes} bytes, found {size}")
        if size < OWN_MEMORY_BYTES:
            return 0
        self._large = np.empty(size, np.uint8).data  # not filled with zeros first
        self._large_flags = flags
        there = len(data) - start
        self._large[:there] = data[start:]
        self.room = self._large[there:]
        return len(data) - position

    def _keep(self, frame: Data, flags: int, messages: list[Message]) -> None:
        frames = self._frames
        self._bytes += len(frame)
        if len(frames) < self._max_frames and self._bytes <= self._max_bytes:
            frames.append(frame)
        elif frames[-1] is not None:
            frames[-1] = None
        if not flags & MORE:
            messages.append(frames)
            self._frames, self._bytes = [], 0

    def _command(self, content: bytes) -> None:
        if content.startswith(b"\4PING"):
            self.replies.append(encode_command(b"PONG", content[7:23]))


def _head(data: bytes, position: int) -> tuple[int, int, int] | None:
    """Flags, size and start of the frame at `position`; None when its head is not whole."""
    if len(data) - position < 2:
        return None
    flags = data[position]
    if flags > (MORE | LONG | COMMAND):
        raise ZmtpError(f"expected a frame of ZMTP, found flags {flags:#x}")
    if not flags & LONG:
        return flags, data[position + 1], position + 2
    if len(data) - position < _LONG_HEAD.size:
        return None
    return flags, _LONG_HEAD.unpack_from(data, position)[1], position + _LONG_HEAD.size


def _socket_type(ready: bytes) -> bytes:
    """Find the property Socket-Type of a READY command; empty when there is none."""
    if not ready.startswith(b"\5READY"):
        raise ZmtpError(f"expected the command READY, found {ready[:20]!r}")
    position = 6
    while position < len(ready):
        name_end = position + 1 + ready[position]
        value_end = name_end + 4 + int.from_bytes(ready[name_end : name_end + 4], "big")
        if ready[position + 1 : name_end].lower() == b"socket-type":
            return ready[name_end + 4 : value_end]
        position = value_end
    return b""
