"""The child's end of the control channel: messages in, messages out, end of file.

Framing is `domain.ctl`; this module only moves bytes. Sending is safe from several threads, so
that a worker's control thread can answer `Ping` while its main thread reports an order done.
"""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import threading
from typing import Generic, TypeVar

import msgspec

from superbrain.domain import ctl
from superbrain.serve import child

T = TypeVar("T")

_RECEIVE_BYTES = 1 << 16


class ChannelEnded(Exception):
    """The daemon is gone: there is nobody left to work for."""


class CtlChannel(Generic[T]):
    """One end of the inherited socketpair: `CtlChannel(sock, msgpack.Decoder(ctl.ToWorker))`."""

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._socket = sock
        self._buffer = ctl.MessageBuffer(decoder)
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: ctl.Message) -> None:
        """Send one message, waiting for room if need be; a daemon that is gone is no error here.

        Whoever reads the channel meets its end and acts on it.
        """
        data = ctl.encode_message(message)
        with self._sending:
            try:
                self._socket.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                return

    @property
    def unread_bytes(self) -> int:
        """How much of what was sent the daemon has not read yet."""
        left = array.array("i", [0])
        fcntl.ioctl(self._socket, termios.TIOCOUTQ, left)
        return left[0]

    def receive(self, *, wait: bool) -> list[T]:
        """Read once; give the messages that are now whole, possibly none.

        Args:
            wait: whether to block until something comes.

        Raises:
            ChannelEnded: end of file.
            CtlError: what came is no message of this channel.
        """
        try:
            data = self._socket.recv(_RECEIVE_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            raise ChannelEnded
        return self._buffer.feed(data)

    def listen(self, *, wait: bool) -> list[T]:
        """Read once, as `receive`; end this process when the daemon is gone or not understood."""
        try:
            return self.receive(wait=wait)
        except ChannelEnded:
            child.end()
        except ctl.CtlError as error:
            child.log("control_channel_broken", error=str(error))
            child.end(1)
