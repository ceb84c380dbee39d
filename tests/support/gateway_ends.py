"""The other end of a client's connection over a Unix socket, played by the test, byte by byte.

It takes frames apart by itself, so that what it finds is not what the code under test believes.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np

from superbrain.client import calls
from superbrain.client.ledger import Exchange
from superbrain.client.link import Link
from superbrain.wire.messages import InferResponse, TensorHeader

PATIENCE_S = 20.0
GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3\1NULL" + bytes(48)
CLIENT_READY = b"\4\x1c\5READY\x0bSocket-Type\0\0\0\6DEALER"
Tensor = bytes | np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
MORE, LONG, COMMAND = 1, 2, 4


def ready(socket_type: bytes = b"ROUTER") -> bytes:
    """Give the command READY of a socket of that type."""
    size = len(socket_type)
    body = b"\5READY\x0bSocket-Type" + struct.pack(">I", size) + socket_type
    return bytes((COMMAND, len(body))) + body


HELLO = GREETING + ready()


def command(name: bytes, body: bytes) -> bytes:
    """Give any command."""
    return bytes((COMMAND, 1 + len(name) + len(body), len(name))) + name + body


def message(*frames: bytes) -> bytes:
    """Give the bytes of one message."""
    parts = []
    for index, frame in enumerate(frames):
        flags = MORE if index + 1 < len(frames) else 0
        size = len(frame)
        short = bytes((flags, size)) if size < 256 else struct.pack(">BQ", flags | LONG, size)
        parts += [short, frame]
    return b"".join(parts)


def answer(request_id: str, *, delimiter: bool = False) -> bytes:
    """Give the answer to the question whether the server lives."""
    header = msgspec.json.encode({"live": True, "id": request_id})
    return message(*([b""] if delimiter else []), b"SB1r", header)


def inferred(request_id: str, *tensors: bytes) -> bytes:
    """Give the answer to an inference with these outputs."""
    headers = [TensorHeader(f"y{i}", "UINT8", [len(one)]) for i, one in enumerate(tensors)]
    header = msgspec.json.encode(InferResponse("m", "1", headers, request_id))
    return message(b"SB1r", header, *tensors)


class Clock:
    """In place of the module `time`: it stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Listener:
    """Where the client connects to; as long as it is open, and again by another one."""

    def __init__(self, address: str, backlog: int = 100) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        if not address.startswith("\0"):
            Path(address).unlink(missing_ok=True)  # as whoever comes back does
        self._socket.bind(address)
        self._socket.listen(backlog)
        self.ends: list[GatewayEnd] = []

    @property
    def called(self) -> bool:
        """Whether somebody waits to be accepted."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def accept(self) -> GatewayEnd:
        """Give the next who calls and does not hang up before a word, as a probe does."""
        self._socket.settimeout(PATIENCE_S)
        while True:
            end = GatewayEnd(self._socket.accept()[0])
            self.ends.append(end)
            if select.select([end.socket], [], [], PATIENCE_S)[0] and not end.gone:
                return end

    def close(self) -> None:
        self._socket.close()
        for end in self.ends:
            end.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class GatewayEnd:
    """One accepted connection; it takes only what it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.setblocking(False)
        self._greeted = False
        self._rest = b""
        self._frames: list[bytes] = []

    @property
    def gone(self) -> bool:
        """Whether the client has ended the connection, and nothing is left to take."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def take(self, at_most: int = 1 << 30) -> bytes:
        """Take the bytes that have come."""
        pieces = []
        while at_most:
            try:
                piece = self.socket.recv(min(at_most, 1 << 20))
            except BlockingIOError:
                break
            if not piece:
                break
            pieces.append(piece)
            at_most -= len(piece)
        return b"".join(pieces)

    def give(self, data: bytes) -> None:
        """Send all of it, which has to have room."""
        assert self.socket.send(data) == len(data)

    def greet(self) -> None:
        """Shake hands, all at once; `messages` finds what the client says to it."""
        assert self.take() == GREETING
        self.give(HELLO)

    def expect_ready(self, came: bytes) -> None:
        """Take note of what was taken of the client's READY."""
        self._rest = came + self._rest

    def messages(self) -> list[list[bytes]]:
        """Take apart what has come since the handshake; commands bear their flags in front."""
        self._rest += self.take()
        if not self._greeted and len(self._rest) >= len(CLIENT_READY):
            assert self._rest.startswith(CLIENT_READY)
            self._rest, self._greeted = self._rest[len(CLIENT_READY) :], True
        if not self._greeted:
            return []
        found: list[list[bytes]] = []
        while (head := self._head()) is not None:
            flags, start, size = head
            content, self._rest = self._rest[start : start + size], self._rest[start + size :]
            if flags & COMMAND:
                found.append([bytes((flags,)), content])
                continue
            self._frames.append(content)
            if not flags & MORE:
                found.append(self._frames)
                self._frames = []
        return found

    def asked(self) -> list[str]:
        """Give the ids of the requests that have come."""
        return [msgspec.json.decode(frames[1])["id"] for frames in self.messages()]

    def _head(self) -> tuple[int, int, int] | None:
        rest = self._rest
        start = 9 if rest and rest[0] & LONG else 2
        if len(rest) < start:
            return None
        size = int.from_bytes(rest[1:start], "big")
        return (rest[0], start, size) if len(rest) >= start + size else None


class Asker:
    """A link that is asked and turned by hand; it never waits."""

    def __init__(self, endpoint: str) -> None:
        self.link = Link(endpoint)
        self.settled: list[Exchange] = []

    def ask(self, deadline: float = float("inf")) -> Exchange:
        """Ask whether the server lives."""
        return self._send(Exchange(calls.server_live(), deadline))

    def infer(self, *tensors: Tensor) -> Exchange:
        """Ask for an inference with these inputs."""
        call = calls.infer("m", {f"x{i}": one for i, one in enumerate(tensors)})
        return self._send(Exchange(call, float("inf")))

    def connected(self) -> bool:
        """Whether it is."""
        return self.link.connected

    def due(self) -> float | None:
        """When to turn though there is no news."""
        return self.link.retry_at

    def turn_when_due(self, clock: Clock) -> None:
        """Let the time come to try again."""
        due = self.due()
        assert due is not None
        clock.now = due
        self.turn()

    def turn(self) -> Sequence[Exchange]:
        """Do once what there is to do."""
        settled = self.link.pump(self.link.poll(0))
        self.settled += settled
        return settled

    def turns(self) -> None:
        """Do all there is to do now."""
        for _ in range(10_000):
            ready = self.link.poll(0)
            if not ready:
                return
            self.settled += self.link.pump(ready)
        raise AssertionError("expected the news to come to an end")

    def _send(self, exchange: Exchange) -> Exchange:
        self.link.open()
        self.settled += self.link.send(exchange)
        return exchange
