"""The load generator of `scripts/bench peers`: one epoll, raw sockets, answers checked.

A road says how to connect, which bytes to send, and where an answer ends; the loop is the same for
all. Each connection has one request outstanding.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

_CHUNK = 1 << 18
_RECONNECT_S = 0.02


class Road(Protocol):
    """How to talk to one server."""

    request: bytes
    expected: bytes

    def connect(self) -> socket.socket:
        """Connect, with every handshake there is.

        Raises:
            OSError: nobody listens.
        """

    def answer_bytes(self, received: bytearray) -> int:
        """Say how long the answer at the start is; 0 when it is not whole."""

    def is_right(self, answer: bytes) -> bool:
        """Whether it is the answer that is expected."""

    def is_goodbye(self, answer: bytes) -> bool:
        """Whether the server takes leave here, having executed nothing that it has not answered."""


class Load:
    """What came of it."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.failed = 0
        self.failure = ""
        self.took_s = 0.0
        self.worst_gap_ms = 0.0


class _Connection:
    def __init__(self, road: Road, epoll: select.epoll) -> None:
        self.socket = road.connect()
        self.socket.setblocking(False)
        self.received = bytearray()
        self._road = road
        self._epoll = epoll
        self._rest = memoryview(b"")
        self._events = select.EPOLLIN
        self.asked = 0.0
        self.open = True
        self.retires = False  # the server has said that it answers no more than what it was asked
        epoll.register(self.socket.fileno(), select.EPOLLIN)

    def ask(self, since: float | None = None) -> None:
        """Send the request; `since` is when it was sent first, on a connection that has gone."""
        self._rest = memoryview(self._road.request)
        self.asked = since or time.perf_counter()
        self.send()

    def send(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[self.socket.send(self._rest) :]
        except BrokenPipeError:  # what it said before it hung up, if anything, is there to be read
            self._rest = memoryview(b"")
        except BlockingIOError:
            pass
        events = select.EPOLLIN | (select.EPOLLOUT if self._rest else 0)
        if events != self._events:
            self._events = events
            self._epoll.modify(self.socket.fileno(), events)

    def receive(self) -> None:
        """Read what is there.

        Raises:
            OSError: the server hung up.
        """
        data = self.socket.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("the server hung up")
        self.received += data

    def answer(self) -> bytes | None:
        """Take an answer that is whole; before and behind it there may be a GOODBYE."""
        count = self._road.answer_bytes(self.received)
        answer = bytes(self.received[:count])
        del self.received[:count]
        return answer or None

    def close(self) -> None:
        self.open = False
        self._epoll.unregister(self.socket.fileno())
        self.socket.close()


def closed_loop(
    road: Road,
    clients: int,
    seconds: float,
    *,
    until: Callable[[], bool] | None = None,
    survive: bool = False,
) -> Load:
    """Ask with so many clients, each again as soon as it is answered.

    Args:
        road: to the server.
        clients: how many connections.
        seconds: at most.
        until: asked now and then whether it is over.
        survive: connect again where a connection fails, instead of giving up.
    """
    load = Load()
    with select.epoll() as epoll:
        loop = _Loop(road, epoll, load, survive=survive)
        loop.run(clients, seconds, until or (lambda: False))
    return load


class _Loop:
    def __init__(self, road: Road, epoll: select.epoll, load: Load, *, survive: bool) -> None:
        self._road = road
        self._epoll = epoll
        self._load = load
        self._survive = survive
        self._connections: dict[int, _Connection] = {}
        self._missing = 0
        self._retry_at = 0.0
        self._unanswered: list[float] = []
        self._last = 0.0

    def run(self, clients: int, seconds: float, over: Callable[[], bool]) -> None:
        self._missing = clients
        begin = self._last = time.perf_counter()
        looked = begin
        while (now := time.perf_counter()) < begin + seconds:
            if self._missing and now >= self._retry_at:
                self._connect()
            for fd, events in self._epoll.poll(_RECONNECT_S):
                if fd in self._connections:
                    self._serve(self._connections[fd], events)
            if now > looked + 0.05:
                looked = now
                if over():
                    break
        self._load.took_s = time.perf_counter() - begin
        for connection in self._connections.values():
            connection.close()

    def _connect(self) -> None:
        while self._missing:
            try:
                connection = _Connection(self._road, self._epoll)
            except OSError as error:
                self._fail(error)
                return
            self._connections[connection.socket.fileno()] = connection
            self._missing -= 1
            try:
                connection.ask(self._unanswered.pop() if self._unanswered else None)
            except OSError as error:
                self._drop(connection)
                self._fail(error)
                return

    def _serve(self, connection: _Connection, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                connection.send()
            if not events & ~select.EPOLLOUT:
                return
            connection.receive()
            while connection.open and (answer := connection.answer()) is not None:
                self._answered(connection, answer)
        except OSError as error:
            self._drop(connection)
            if not connection.retires:
                self._fail(error)

    def _answered(self, connection: _Connection, answer: bytes) -> None:
        if self._road.is_goodbye(answer):
            connection.retires = True  # what was asked here may still be answered
            return
        now = time.perf_counter()
        if self._road.is_right(answer):
            self._load.latencies_ms.append((now - connection.asked) * 1000)
            self._load.worst_gap_ms = max(self._load.worst_gap_ms, (now - self._last) * 1000)
            self._last = now
            if connection.retires:
                connection.asked = now
                self._drop(connection)
            else:
                connection.ask()
        else:
            self._drop(connection)
            self._fail(OSError(f"wrong answer {answer[:200]!r}"))

    def _drop(self, connection: _Connection) -> None:
        self._connections.pop(connection.socket.fileno())
        self._unanswered.append(connection.asked)
        connection.close()
        self._missing += 1

    def _fail(self, error: OSError) -> None:
        self._load.failed += 1
        self._retry_at = time.perf_counter() + _RECONNECT_S
        self._load.failure = self._load.failure or str(error)
        if not self._survive:
            raise error
