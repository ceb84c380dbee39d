"""The connection to a gateway of this host: ZMTP over a Unix stream socket, spoken here.

A request that libzmq sends goes through a thread of its own on both ways, which costs more than the
gateway takes (docs/decisions/0033-local-clients-speak-zmtp.md). What listens may be libzmq's: a
ROUTER, or a proxy of DEALERs. No delimiter is sent, so a REP shakes hands and then answers nothing.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from superbrain.client.calls import Frame
from superbrain.client.endpoint import unix_address
from superbrain.client.gateway import NO_CHANGE, Change
from superbrain.transport.stream_socket import of_the_kernel
from superbrain.transport.zmtp_socket import READY_AS_DEALER, ZmtpSocket
from superbrain.wire.errors import Unavailable
from superbrain.wire.lane import MAX_BODY_BYTES
from superbrain.wire.messages import MAX_TENSORS
from superbrain.wire.zmtp import Decoder, ZmtpError, encode

# How long after a loss, and after how many of them, to try again.
RETRY_S: Final = 0.01
RETRY_MAX_S: Final = 0.32
_PEERS: Final = (b"ROUTER", b"DEALER", b"REP")  # who may talk with a DEALER
_MAX_FRAMES: Final = MAX_TENSORS + 3  # a delimiter, verb and header
_SCRATCH_BYTES: Final = 1 << 16


class UnixGateway:
    """As `gateway.Gateway` says."""

    def __init__(self, endpoint: str, epoll: select.epoll) -> None:
        self.connected = False
        self.retry_at: float | None = 0.0
        self._endpoint = endpoint
        self._epoll = epoll
        self._retry_s = RETRY_S
        self._arrived: deque[list[Any]] = deque()
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._talk: ZmtpSocket | None = None
        self._reconnect()

    @property
    def takes(self) -> bool:
        return self.connected and self._talk is not None and not self._talk.pending_bytes

    def owns(self, fd: int) -> bool:
        return self._talk is not None and fd == self._talk.fd

    def catch_up(self) -> Change:
        talk = self._talk
        if talk is None:
            self._reconnect()
            return NO_CHANGE
        try:
            messages = talk.read(self._scratch)
        except ZmtpError as error:
            self._lose()
            return Change(lost=True, refusal=self._no_gateway(error.message))
        self._arrived += map(_form, messages)
        if talk.ended or (talk.broken and not messages):
            self._lose()
            return Change(lost=True)
        if talk.pending_bytes:
            talk.flush()
        talk.watch(self._epoll)
        if talk.broken:
            self._read_on()
        elif talk.greeted and not self.connected:
            self.connected, self._retry_s = True, RETRY_S
        return NO_CHANGE

    def ask_again(self) -> None:
        """Do nothing: nothing is ever given up here."""

    def receive(self) -> list[Any] | None:
        return self._arrived.popleft() if self._arrived else None

    def send(self, frames: Sequence[Frame]) -> None:
        talk = self._talk
        if talk is None:
            msg = "a message is only sent where the gateway takes it"
            raise RuntimeError(msg)
        talk.send(encode(frames))
        if talk.pending_bytes:
            talk.watch(self._epoll)
        if talk.broken:
            self._read_on()

    def suspicion(self) -> Unavailable | None:
        if self._talk is None or self._talk.greeted:
            return None
        return Unavailable(
            f"{self._endpoint} takes the connection and says nothing",
            mend="Does the gateway hang, or does something else listen there? Look at: "
            "systemctl status superbraind",
        )

    def close(self) -> None:
        self.connected, self.retry_at = False, None
        self._arrived.clear()
        if self._talk is not None:
            self._talk.close()
            self._talk = None

    def _reconnect(self) -> None:
        if self.retry_at is None or time.monotonic() < self.retry_at:
            return
        try:
            sock = _connected(unix_address(self._endpoint))
        except OSError as error:  # nobody listens, or somebody who has a long line of callers
            if not of_the_kernel(error):
                raise
            self._try_later()
            return
        self.retry_at = None
        # libzmq hangs up on a READY that does not suit it; to say its own it needs the greeting.
        decoder = Decoder(_MAX_FRAMES, MAX_BODY_BYTES, peers=_PEERS, ready=READY_AS_DEALER)
        self._talk = ZmtpSocket(sock, decoder)
        self._talk.watch(self._epoll)

    def _read_on(self) -> None:
        """Send nothing any more: it is lost when what the other end has left is read."""
        self.connected, self.retry_at = False, time.monotonic()

    def _lose(self) -> None:
        if self._talk is not None:
            self._talk.close()
            self._talk = None
        self.connected = False
        self._try_later()

    def _try_later(self) -> None:
        self.retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)

    def _no_gateway(self, found: str) -> Unavailable:
        return Unavailable(
            f"{self._endpoint} is no superbrain gateway's: {found}",
            mend="Does something else listen there? Look at: superbrain status",
        )


def _connected(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _form(frames: Sequence[Any]) -> list[Any]:
    """Leave out the delimiter of REQ and REP; give tensors memory that may be written to."""
    if frames[-1] is None:  # more than any answer may be
        return [b""]
    start = 1 if len(frames) > 1 and not len(frames[0]) else 0
    head = [bytes(one) for one in frames[start : start + 2]]
    tensors = frames[start + 2 :]
    return head + [memoryview(bytearray(one)) if type(one) is bytes else one for one in tensors]
