"""A connected Unix stream socket on which ZMTP is spoken, at either end of it.

Greeting, and on the asking side READY, are sent without waiting for the other end's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from superbrain.transport.stream_socket import StreamSocket, of_the_kernel
from superbrain.wire.zmtp import GREETING, Decoder, Message, encode_command

if TYPE_CHECKING:
    import socket

_READS_PER_TURN: Final = 4  # the head of a large frame, its body; then others get their turn
READY_AS_DEALER: Final = encode_command(b"READY", b"\x0bSocket-Type\0\0\0\6DEALER")


class ZmtpSocket(StreamSocket):
    """Messages out of a connection; `StreamSocket` sends. Not thread-safe.

    Args:
        sock: connected.
        decoder: of what may come.
        ready: the command READY of the asking side, whose decoder then answers none.
    """

    def __init__(self, sock: socket.socket, decoder: Decoder, ready: bytes = b"") -> None:
        super().__init__(sock)
        self._decoder = decoder
        self.send([GREETING + ready])

    @property
    def greeted(self) -> bool:
        """Whether the other end has finished its handshake."""
        return self._decoder.greeted

    def read(self, scratch: memoryview) -> list[Message]:
        """Read what is there, within a fair share; sets `ended` at end of file.

        Args:
            scratch: memory to read into, free again on return.

        Raises:
            ZmtpError: the other end does not speak ZMTP 3; the connection must be closed.
        """
        messages: list[Message] = []
        decoder = self._decoder
        for _ in range(_READS_PER_TURN):
            room = decoder.room
            into = scratch if room is None else room
            try:
                count = self._socket.recv_into(into)
            except BlockingIOError:
                break
            except OSError as error:  # a reset comes after everything that was sent before it
                if not of_the_kernel(error):
                    raise
                count = 0
            if not count:
                self.ended = True
                break
            if room is None:
                messages += decoder.feed(bytes(scratch[:count]))
            else:
                messages += decoder.filled(count)
            if messages or count < len(into):
                break
        self._reply()
        return messages

    def take(self, data: bytes) -> list[Message]:
        """As `read`, for bytes that have been received elsewhere."""
        messages = self._decoder.feed(data)
        self._reply()
        return messages

    @property
    def between_messages(self) -> bool:
        """Whether nothing waits to be sent, and no part of a message has come."""
        return self._decoder.between_messages and not (
            self.pending_bytes or self._posted or self.ended or self.broken
        )

    def _reply(self) -> None:
        if self._decoder.replies:
            self.send(self._decoder.replies)
            self._decoder.replies = []
