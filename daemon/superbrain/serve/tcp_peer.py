"""One TCP client as the face serves it: a connection of its own to the gateway, and its answers.

To the gateway every TCP client is a client like any other, with its own limits, whose waiting
requests it drops when the connection ends. Memory is bounded per client:

- At most `most_requests` without an answer, and at most `UNSENT_BYTES` that the gateway has not
  taken; more is answered RESOURCE_EXHAUSTED.
- Answers that the client does not take wait: in libzmq (`ANSWERS_AHEAD` of them), then one here,
  then in the gateway, which stops reading its requests.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from superbrain.serve.peer import ClientMessage, Malformed, Peer
from superbrain.transport.zmtp_socket import READY_AS_DEALER
from superbrain.wire.errors import ResourceExhausted
from superbrain.wire.messages import MAX_MESSAGE_BYTES, PROTOCOL
from superbrain.wire.zmtp import Decoder, encode

if TYPE_CHECKING:
    import select
    from collections.abc import Sequence

    from superbrain.serve.tcp_connections import Connection
    from superbrain.wire.lane import Data

UNSENT_BYTES: Final = 64 << 20
ANSWERS_AHEAD: Final = 16
_MAX_FRAMES = 2048


class GatewayLink(Peer):
    """A client's connection to the gateway: ZMTP from the asking side."""

    def __init__(self, path: str) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there now.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        decoder = Decoder(_MAX_FRAMES, MAX_MESSAGE_BYTES, peers=(b"ROUTER",), ready=b"")
        super().__init__(sock, decoder, READY_AS_DEALER)


class TcpPeer:
    """A client that has sent something.

    Attributes:
        connection: its TCP connection.
        link: its connection to the gateway; None while there is none.
        outstanding: how many of its requests have no answer.
        behind: the answer that it has no room for now, as frames.
        behind_since: when that began, `time.monotonic()` seconds.
    """

    def __init__(self, connection: Connection, path: str, most_requests: int) -> None:
        self.connection = connection
        self.link: GatewayLink | None = None
        self.outstanding = 0
        self.behind: list[list[Data]] = []
        self.behind_since = 0.0
        self._path = path
        self._most_requests = most_requests
        self._unsent: list[Data] = []
        self._unsent_bytes = 0

    @property
    def waits_for_gateway(self) -> bool:
        """Whether it has sent something that no gateway is there for."""
        return self.link is None and bool(self._unsent)

    def admit(self) -> None:
        """Count one more request.

        Raises:
            ResourceExhausted: it has as many, or as much, under way as it may have.
        """
        pending = self._unsent_bytes if self.link is None else self.link.pending_bytes
        if self.outstanding >= self._most_requests or pending > UNSENT_BYTES:
            raise ResourceExhausted(
                f"expected at most {self._most_requests} requests of one TCP client under way, "
                f"of which {UNSENT_BYTES} bytes wait, found {self.outstanding} and {pending}",
                mend="Wait for answers, or ask in smaller numbers",
            )
        self.outstanding += 1

    def ask(self, frames: Sequence[Data]) -> None:
        """Pass a request on, or keep it until there is a gateway."""
        buffers = encode(frames)
        if self.link is not None:
            self.link.send(buffers)
            return
        self._unsent += buffers
        self._unsent_bytes += sum(map(len, buffers))

    def connect(self, epoll: select.epoll) -> bool:
        """Connect to the gateway and send what has waited for it; false while it is away."""
        if self.link is not None:
            return True
        with suppress(OSError):
            self.link = GatewayLink(self._path)
        if self.link is None:
            return False
        self.link.send(self._unsent)
        self._unsent, self._unsent_bytes = [], 0
        self.link.watch(epoll)
        return True

    def answers(self, scratch: memoryview) -> list[list[Data]]:
        """Read answers of the gateway, each as the frames that the client gets.

        Raises:
            ZmtpError: the gateway sent what is none.
        """
        assert self.link is not None  # noqa: S101 - read only while there is one
        return [_frames(message) for message in self.link.receive(scratch)]

    def drop_link(self) -> None:
        """End the connection to the gateway, which forgets what of this client still waits."""
        if self.link is not None:
            self.link.close()
            self.link = None


def envelope_of(frames: Sequence[Data]) -> int:
    """How many frames are the envelope of a message: all up to the first empty one, or none."""
    if len(frames[0]) == len(PROTOCOL) + 1 and frames[0][: len(PROTOCOL)] == PROTOCOL:
        return 0
    return next((index + 1 for index, frame in enumerate(frames) if not len(frame)), 0)


def _frames(message: ClientMessage | Malformed) -> list[Data]:
    if isinstance(message, Malformed):
        raise message
    kind = PROTOCOL + message.verb
    return [*message.envelope.frames, kind, message.header, *message.tensors]
