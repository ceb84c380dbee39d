"""Replies to clients over the ROUTER socket, with patience for those that read slowly.

The socket holds a few replies per client. What exceeds that is held back here, in order and up to
a limit in bytes, and offered again until the client reads or is gone. So a client that was merely
not scheduled for a moment loses nothing, and one that never reads cannot make the process grow.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Any

import zmq

from superbrain.wire.messages import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmq.backend import Socket

    from superbrain.wire.lane import Data

RETRY_S = 0.01
# Messages inside the socket per client; a message counts as one, whatever its size.
_WATERMARK = 64
_MAX_HELD_BYTES = 64 << 20
_MAX_HELD_REPLIES = 4096
_COPY_BELOW_BYTES = 1 << 16  # sharing a small buffer costs more than a copy
# Plain numbers: combining the enumeration's members costs microseconds on every reply.
_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)
_LAST = int(zmq.NOBLOCK)


class Replies:
    """Sends replies; what a client does not take yet waits in `held`."""

    def __init__(self, router: Socket) -> None:
        # Without `mandatory` the socket would drop silently what we can still keep.
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.SNDHWM, _WATERMARK)
        self._send: Any = router.send
        self._held: dict[bytes, deque[list[Data]]] = {}
        self._held_bytes = 0
        self._held_replies = 0
        self.dropped = 0

    @property
    def behind(self) -> bool:
        """Whether some client is behind; then `retry` is due every `RETRY_S`."""
        return bool(self._held)

    def send(
        self, envelope: Sequence[bytes], verb: bytes, header: Data, tensors: Sequence[Data] = ()
    ) -> None:
        """Send one reply, or hold it back behind those the client has not taken yet."""
        parts: list[Data] = [*envelope, PROTOCOL + verb, header, *tensors]
        if envelope[0] in self._held or not self._offer(parts):
            self._hold(parts)

    def retry(self) -> None:
        """Offer again what was held back."""
        for client, waiting in list(self._held.items()):
            while waiting and self._offer(waiting[0]):
                self._held_bytes -= _size(waiting.popleft())
                self._held_replies -= 1
            if not waiting:
                del self._held[client]

    def _offer(self, parts: Sequence[Data]) -> bool:
        """Whether the socket took the reply, or there is nobody left to take it."""
        send = self._send
        last = len(parts) - 1
        try:
            for part in parts[:last]:
                send(part, _MORE, len(part) < _COPY_BELOW_BYTES)
            send(parts[last], _LAST, len(parts[last]) < _COPY_BELOW_BYTES)
        except zmq.ZMQError as error:  # raised for the first part only: all or nothing is taken
            if error.errno == errno.EHOSTUNREACH:
                return True
            if error.errno == errno.EAGAIN:
                return False
            raise
        return True

    def _hold(self, parts: list[Data]) -> None:
        size = _size(parts)
        full = self._held_bytes + size > _MAX_HELD_BYTES
        if full or self._held_replies >= _MAX_HELD_REPLIES:
            self.dropped += 1
            return
        self._held_bytes += size
        self._held_replies += 1
        self._held.setdefault(bytes(parts[0]), deque()).append(parts)


def _size(parts: Sequence[Data]) -> int:
    return sum(map(len, parts))
