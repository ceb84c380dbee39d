"""One ZeroMQ client of the gateway: its messages in, its answers out, over one Unix stream socket.

REQ and DEALER clients are served alike: a reply bears the envelope its request came with, which is
whatever hops proxies added, and the empty delimiter if there was one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from superbrain.transport.zmtp_socket import ZmtpSocket
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import (
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TENSORS,
    PROTOCOL,
)
from superbrain.wire.zmtp import Decoder, Message

if TYPE_CHECKING:
    import socket

    from superbrain.wire.lane import Data

    UsualPeer = tuple["Peer", "Envelope", "Envelope"]

_MAX_HOPS = 8
_MAX_FRAMES = _MAX_HOPS + 2 + MAX_TENSORS
_MAX_TENSOR_BYTES = MAX_MESSAGE_BYTES - 2 * MAX_HEADER_BYTES  # room for the header and padding
_VERB_BYTES = len(PROTOCOL) + 1
# A client that leaves this much unread is not read either until it has taken some.
PATIENCE_BYTES: Final = 1 << 20


class Envelope:
    """Where a reply goes: which client, behind which frames."""

    __slots__ = ("frames", "peer")

    def __init__(self, peer: Peer, frames: list[Data]) -> None:
        self.peer = peer
        self.frames = frames


class ClientMessage:
    """One message of a client, taken apart."""

    __slots__ = ("envelope", "header", "tensors", "verb")

    def __init__(self, envelope: Envelope, verb: bytes, header: Data, tensors: list[Data]) -> None:
        self.envelope = envelope
        self.verb = verb
        self.header = header
        self.tensors = tensors


class Malformed(InvalidArgument):
    """A message that is not of this protocol; `envelope` is where to say so."""

    def __init__(self, envelope: Envelope, message: str) -> None:
        super().__init__(message, mend="docs/protocol.md describes the frames")
        self.envelope = envelope


class Peer(ZmtpSocket):
    """A connected client. Not thread-safe."""

    def __init__(
        self, sock: socket.socket, decoder: Decoder | None = None, ready: bytes = b""
    ) -> None:
        super().__init__(sock, decoder or Decoder(_MAX_FRAMES, MAX_MESSAGE_BYTES), ready)
        self._usual: UsualPeer | None = self, Envelope(self, []), Envelope(self, [b""])

    @property
    def usual(self) -> UsualPeer | None:
        """What the compiled loop needs of it; None while something waits or is half read."""
        return self._usual if self.between_messages else None

    def close(self) -> None:
        """End the connection."""
        self._usual = None  # which leads back here, and nobody collects while requests travel
        super().close()

    @property
    def patient(self) -> bool:
        """Whether it takes its answers well enough to be read further."""
        return self.pending_bytes < PATIENCE_BYTES

    @property
    def settled(self) -> bool:
        """Whether it has shaken hands, or has gone."""
        return self.ended or self.greeted

    def receive(self, scratch: memoryview) -> list[ClientMessage | Malformed]:
        """As `read`, with the messages taken apart."""
        return [self._take_apart(frames) for frames in self.read(scratch)]

    def received(self, data: bytes) -> list[ClientMessage | Malformed]:
        """As `receive`, for bytes that the compiled loop has received."""
        return [self._take_apart(frames) for frames in self.take(data)]

    def _take_apart(self, frames: Message) -> ClientMessage | Malformed:
        """Give the message, or what is wrong with it; only its last frame may be None."""
        verb_at = _verb_at(frames)
        envelope = Envelope(self, cast("list[Data]", frames[:verb_at]))
        verb = frames[verb_at] if verb_at < len(frames) else None
        if verb is None or not _is_verb(verb):
            found = bytes((verb or frames[-1] or b"")[:20])
            what = f"expected a first frame of {PROTOCOL!r} and one verb, found {found!r}"
            return Malformed(envelope, what)
        if verb_at + 1 == len(frames):
            return Malformed(envelope, "expected a JSON header frame behind the verb, found none")
        header = frames[verb_at + 1]
        if header is None or len(header) > MAX_HEADER_BYTES:
            what = f"expected a header of at most {MAX_HEADER_BYTES} bytes, found a longer one"
            return Malformed(envelope, what)
        if frames[-1] is None or not _fits(tensors := cast("list[Data]", frames[verb_at + 2 :])):
            what = (
                f"expected at most {MAX_TENSORS} tensor frames of together {_MAX_TENSOR_BYTES} "
                "bytes, found more"
            )
            return Malformed(envelope, what)
        return ClientMessage(envelope, bytes(verb[3:]), header, tensors)


def _is_verb(frame: Data | None) -> bool:
    return frame is not None and len(frame) == _VERB_BYTES and frame[:3] == PROTOCOL


def _verb_at(frames: Message) -> int:
    """Where the protocol begins: at once, or behind the first empty frame, such as REQ's."""
    if frames[0] == b"":
        return 1
    if _is_verb(frames[0]):
        return 0
    for index, frame in enumerate(frames[: _MAX_HOPS + 1]):
        if frame == b"":
            return index + 1
    return 0


def _fits(tensors: list[Data]) -> bool:
    return len(tensors) <= MAX_TENSORS and sum(map(len, tensors)) <= _MAX_TENSOR_BYTES
