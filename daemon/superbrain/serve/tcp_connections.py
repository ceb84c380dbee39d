"""The TCP connections that libzmq holds for a ROUTER: which there are, how many, how one ends.

libzmq tells of them by its monitor, and of a message's connection by its descriptor. It has no way
to end a client's connection, so `cut` shuts its descriptor down, as the network would.

- At most `most` connections.
- At most `MOST_FRESH` of them that have just come and said nothing: the oldest of these makes room.
  A real client shakes hands within milliseconds; libzmq ends what has not after `HANDSHAKE_S`.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.serve.tcp_guard import RefusalLog

HANDSHAKE_S: Final = 10.0
MOST_FRESH: Final = 64
_EVENT = struct.Struct("=HI")
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_WATCHED = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_ENDPOINT = "inproc://tcp-connections"
_NO_CURVE = "it does not speak CURVE with this host's public key"


class Connection:
    """One TCP connection; `route`, its ROUTER identity, and `key` are known once it has spoken."""

    __slots__ = ("accepted_at", "address", "cut", "fd", "key", "route")

    def __init__(self, fd: int, address: str, accepted_at: float) -> None:
        self.fd = fd
        self.address = address
        self.accepted_at = accepted_at
        self.route = b""
        self.key = ""
        self.cut = False


class Connections:
    """All of them, by descriptor."""

    def __init__(
        self,
        router: zmq.Socket[bytes],
        most: int,
        refusals: RefusalLog,
        on_gone: Callable[[Connection], None],
    ) -> None:
        self._most = most
        self._refusals = refusals
        self._on_gone = on_gone
        self._no_curve = False
        self._by_fd: dict[int, Connection] = {}
        self._fresh: dict[int, Connection] = {}
        self._router = router
        router.monitor(_ENDPOINT, _WATCHED)
        self._monitor = router.context.socket(zmq.PAIR)
        self._monitor.linger = 0
        # Without a limit: at its limit a monitor stops the whole context until it is read.
        self._monitor.set(zmq.RCVHWM, 0)
        self._monitor.connect(_ENDPOINT)
        self.fd = self._monitor.fileno()

    def __len__(self) -> int:
        return len(self._by_fd)

    def look(self, now: float) -> None:
        """Take note of who has come and gone."""
        while int(self._monitor.get(_EVENTS)) & _POLLIN:
            kind, value = _EVENT.unpack_from(self._monitor.recv_multipart()[0])
            if kind == zmq.EVENT_ACCEPTED:
                self._accepted(value, now)
            elif kind == zmq.EVENT_DISCONNECTED:
                self._gone(value, now)
            else:
                self._no_curve = True  # whose handshake it was the next DISCONNECTED tells

    def close(self) -> None:
        """Watch no more."""
        self._router.disable_monitor()
        self._monitor.close()

    def sender(self, fd: int, route: bytes) -> Connection | None:
        """Find the connection that a first message came by; None when it has gone or is cut."""
        connection = self._by_fd.get(fd)
        if connection is None or connection.cut:
            return None
        connection.route = route
        self._fresh.pop(fd, None)
        return connection

    def cut(self, connection: Connection) -> None:
        """End a connection; libzmq will tell when it has noticed."""
        if connection.cut or self._by_fd.get(connection.fd) is not connection:
            return
        connection.cut = True
        self._fresh.pop(connection.fd, None)
        # The number could be another connection's by now: only the one with this address is meant.
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fd)) as double:
            if _address_of(double) == connection.address:
                double.shutdown(socket.SHUT_RDWR)

    def _accepted(self, fd: int, now: float) -> None:
        address = ""
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as double:
            address = _address_of(double)
        connection = self._by_fd[fd] = self._fresh[fd] = Connection(fd, address, now)
        if len(self._by_fd) > self._most:
            what = f"expected at most {self._most} connections"
            self._refusals.add(what, now, address=address)
            self.cut(connection)
        for other in list(self._fresh.values()):
            if now - other.accepted_at <= HANDSHAKE_S:
                break
            del self._fresh[other.fd]
        if len(self._fresh) > MOST_FRESH:
            oldest = next(iter(self._fresh.values()))
            what = f"expected at most {MOST_FRESH} clients that shake hands"
            self._refusals.add(what, now, address=oldest.address)
            self.cut(oldest)

    def _gone(self, fd: int, now: float) -> None:
        connection = self._by_fd.pop(fd, None)
        self._fresh.pop(fd, None)
        if self._no_curve:
            self._no_curve = False
            address = connection.address if connection is not None else ""
            self._refusals.add(_NO_CURVE, now, address=address)
        if connection is not None:
            self._on_gone(connection)


def _address_of(sock: socket.socket) -> str:
    host, port, *_ = sock.getpeername()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
