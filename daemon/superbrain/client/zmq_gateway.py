"""The connection to a gateway through libzmq: over TCP, with its keys and heartbeats.

What has to be known of ZeroMQ:

- `IMMEDIATE=1`: the socket takes a message only for a peer that is there, and drops its queue with
  the connection. So ZeroMQ never holds a request that the ledger does not know to be in doubt, and
  after a reconnect everything unanswered is sent exactly once. With 0, what lay in the queue would
  be sent by ZeroMQ and again by us.
- Between DISCONNECTED and HANDSHAKE_SUCCEEDED nothing is sent: in that gap the old queue may still
  take messages and lose them. Both events come in order with the queue's end and the new one.
- `RCVHWM=0`: a gateway drops the answers of a peer that does not take them, and what can come is
  bounded by what was asked.
- `LINGER=0`: on close nobody is left who would read the answers.
- A socket's FD reports news once (edge-triggered), and any use of the socket may consume them. So
  whoever uses it goes on until there is nothing to read and to send.
- `HEARTBEAT_*` for TCP alone: a network may fall silent, the peer of a Unix socket cannot.
"""

from __future__ import annotations

import select
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import zmq

from superbrain.client.calls import Frame
from superbrain.client.endpoint import CurveKeys
from superbrain.client.gateway import Change
from superbrain.client.handshake import WATCHED, Handshake
from superbrain.wire.errors import InvalidArgument, Unavailable

RECONNECT_MS: Final = 10
RECONNECT_MAX_MS: Final = 320
HEARTBEAT_MS: Final = 5_000
_EVENT = struct.Struct("=H")
# pyzmq's enums cost a microsecond each time they are combined or looked up.
_EVENTS = int(zmq.EVENTS)
_RCVMORE = int(zmq.RCVMORE)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_NOBLOCK = int(zmq.NOBLOCK)
_SEND_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class ZmqGateway:
    """A DEALER and its monitor; as `gateway.Gateway` says.

    Raises:
        InvalidArgument: ZeroMQ refuses the endpoint or the keys.
    """

    retry_at = None  # libzmq tries by itself

    def __init__(self, endpoint: str, curve: CurveKeys | None, epoll: select.epoll) -> None:
        self.connected = False
        self._endpoint = endpoint
        self._curve = curve
        self._handshake = Handshake(endpoint, curve)
        self._refused = False
        self._events = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._dealer, self._monitor = self._make()
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            msg = f"expected an endpoint and keys that ZeroMQ takes, found {endpoint}: {error}"
            raise InvalidArgument(msg) from error
        self._fds = self._dealer.fileno(), self._monitor.fileno()
        for fd in self._fds:
            epoll.register(fd, select.EPOLLIN)

    @property
    def takes(self) -> bool:
        return self.connected and bool(self._events & _POLLOUT)

    def owns(self, fd: int) -> bool:
        return fd in self._fds

    def catch_up(self) -> Change:
        refusal: Unavailable | None = None
        lost = False
        while True:
            events: Any = self._monitor.get(_EVENTS)
            if not events & _POLLIN:
                break
            event = _EVENT.unpack_from(self._monitor.recv_multipart(_NOBLOCK)[0])[0]
            refusal = self._handshake.event(event) or refusal
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected = True
                refusal = None
            elif event == zmq.EVENT_DISCONNECTED:
                self.connected = False
                lost = True
        if refusal is None or self._refused:
            return Change(lost)
        self._refused = True
        with suppress(zmq.ZMQError):  # it may have forgotten the endpoint already
            self._dealer.disconnect(self._endpoint)
        return Change(lost, refusal)

    def ask_again(self) -> None:
        if self._refused:
            self._refused = False
            self._dealer.connect(self._endpoint)

    def receive(self) -> list[Any] | None:
        events: Any = self._dealer.get(_EVENTS)
        self._events = events
        if not events & _POLLIN:
            return None
        return _receive(self._dealer)

    def send(self, frames: Sequence[Frame]) -> None:
        # The socket said that it takes a message; it then takes all its frames.
        for frame in frames[:-1]:
            self._dealer.send(frame, _SEND_MORE)
        self._dealer.send(frames[-1], _NOBLOCK)

    def suspicion(self) -> Unavailable | None:
        return self._handshake.suspicion()

    def close(self) -> None:
        self.connected = False
        self._dealer.disable_monitor()
        self._monitor.close(linger=0)
        self._dealer.close(linger=0)
        self._context.term()

    def _make(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.set(zmq.IMMEDIATE, 1)
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.RCVHWM, 0)
        dealer.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        dealer.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        if self._endpoint.startswith("tcp:"):
            dealer.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            dealer.set(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
            dealer.set(zmq.IPV6, int("[" in self._endpoint))
        if self._curve is not None:
            dealer.set(zmq.CURVE_SERVERKEY, self._curve.server.encode())
            dealer.set(zmq.CURVE_PUBLICKEY, self._curve.public.encode())
            dealer.set(zmq.CURVE_SECRETKEY, self._curve.secret.encode())
        dealer.monitor("inproc://monitor", WATCHED)
        monitor = self._context.socket(zmq.PAIR)
        # Without a limit: at its limit a monitor stops the whole context until it is read.
        monitor.set(zmq.RCVHWM, 0)
        monitor.set(zmq.LINGER, 0)
        monitor.connect("inproc://monitor")
        dealer.connect(self._endpoint)
        return dealer, monitor


def _receive(dealer: zmq.Socket[bytes]) -> list[Any]:
    """Give verb and header as bytes and each tensor as the memory ZeroMQ received it in."""
    first = dealer.recv(_NOBLOCK)
    if not first and dealer.get(_RCVMORE):  # the delimiter of REQ and REP
        first = dealer.recv(_NOBLOCK)
    frames: list[Any] = [first]
    more: Any = dealer.get(_RCVMORE)
    if more:
        frames.append(dealer.recv(_NOBLOCK))
        more = dealer.get(_RCVMORE)
    while more:
        frame = dealer.recv(_NOBLOCK, copy=False)
        frames.append(frame.buffer)
        more = frame.more
    return frames
