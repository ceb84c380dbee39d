"""The connection to a gateway, as a link needs it; `link.connect` chooses which of its two kinds.

On this host the client speaks ZMTP itself (`unix_gateway`), without a thread in between. Everywhere
else libzmq does (`zmq_gateway`), with its keys and heartbeats, and is only imported then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from superbrain.client.calls import Frame
from superbrain.wire.errors import Unavailable


class Change(NamedTuple):
    """What became of a connection: whether what was sent over it is in doubt, why it is refused."""

    lost: bool = False
    refusal: Unavailable | None = None


NO_CHANGE: Final = Change()


class Gateway(Protocol):
    """A connection to a gateway, which comes back when it was lost. Nothing here waits."""

    @property
    def connected(self) -> bool:
        """Whether a gateway has shaken hands and has not gone since."""

    @property
    def takes(self) -> bool:
        """Whether it takes a message, as of the last `receive`."""

    @property
    def retry_at(self) -> float | None:
        """When `catch_up` is due though nothing has come, as `time.monotonic` counts; or never."""

    def owns(self, fd: int) -> bool:
        """Whether what is reported of this descriptor is for `catch_up` and `receive`."""

    def catch_up(self) -> Change:
        """Take note of what has become of the connection, and try to get it back."""

    def ask_again(self) -> None:
        """Take up what was given up: somebody asks, and wants to know how it is now."""

    def receive(self) -> list[Any] | None:
        """Give the next message: verb and header as bytes, and each tensor as a memoryview."""

    def send(self, frames: Sequence[Frame]) -> None:
        """Send a message, which it `takes`."""

    def suspicion(self) -> Unavailable | None:
        """What is probably wrong when somebody was reached who never finished the handshake."""

    def close(self) -> None:
        """Release the sockets."""
