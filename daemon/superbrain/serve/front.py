"""The public ZeroMQ socket: bind it safely, take messages apart.

REQ and DEALER clients are served alike: a reply bears the envelope its request came with, which
is the peer's identity, whatever hops proxies added, and the empty delimiter if there was one.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import zmq
from zmq.backend import Socket

from superbrain.serve.replies import Replies
from superbrain.wire.errors import InvalidArgument, SuperbrainError
from superbrain.wire.messages import (
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TENSORS,
    PROTOCOL,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.wire.lane import Data

IPC = "ipc://"
# Requests of one peer held inside the socket; a peer that sends faster has to wait.
_RECEIVE_WATERMARK = 64
_BACKLOG = 512
_MAX_HOPS = 8
_MAX_TENSOR_BYTES = MAX_MESSAGE_BYTES - 2 * MAX_HEADER_BYTES  # room for the header and padding
# Plain numbers: the enumeration's members are slow to combine.
_NOBLOCK = int(zmq.NOBLOCK)
_NO_COPY: Final = False  # passed by position: half the price of a keyword here
_VERB_BYTES = len(PROTOCOL) + 1


class EndpointUnavailable(SuperbrainError):
    """The public socket cannot be bound."""


class ClientMessage:
    """One message of a client, taken apart; `verb` is empty when it is none of this protocol."""

    __slots__ = ("envelope", "header", "tensors", "verb")

    def __init__(
        self, envelope: list[bytes], verb: bytes, header: bytes, tensors: list[Data]
    ) -> None:
        self.envelope = envelope
        self.verb = verb
        self.header = header
        self.tensors = tensors


class Malformed(InvalidArgument):
    """A message that is not of this protocol; `envelope` is where to say so."""

    def __init__(self, envelope: list[bytes], message: str) -> None:
        super().__init__(message, mend="docs/protocol.md describes the frames")
        self.envelope = envelope


class Front:
    """The bound ROUTER socket."""

    def __init__(self, endpoint: str) -> None:
        """Bind `endpoint`.

        Raises:
            EndpointUnavailable: it is no ipc endpoint, somebody answers on it, or the path cannot
                be used.
        """
        path = _path_of(endpoint)
        _check_free(path)
        self._context = zmq.Context()
        # pyzmq's plain socket: what `zmq.Socket` adds doubles the cost of every send.
        self._socket = Socket(self._context, zmq.ROUTER)
        self.replies = Replies(self._socket)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.RCVHWM, _RECEIVE_WATERMARK)
        self._socket.set(zmq.BACKLOG, _BACKLOG)
        self._socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        umask = os.umask(0o117)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise EndpointUnavailable(f"expected to bind {endpoint}, found: {error}") from error
        finally:
            os.umask(umask)
        self._take: Any = self._socket.recv
        self.fd = int(self._socket.get(zmq.FD))

    def receive(self) -> ClientMessage | None:
        """Take the next message apart; None when there is none.

        To be asked until there is none, after the last send and before sleeping: `fd` reports
        changes only. A `Frame` knows whether more follows; asking the socket costs a microsecond.

        Raises:
            Malformed: it is not `[PROTOCOL + verb][header][tensor]…`, or beyond the limits.
        """
        take = self._take
        try:
            envelope = [take(_NOBLOCK)]
        except zmq.Again:
            return None
        part = take(_NOBLOCK, _NO_COPY)
        verb = part.bytes
        if verb[:3] != PROTOCOL and part.more:
            part = self._rest_of_envelope(envelope, part)
            verb = part.bytes
        if len(verb) != _VERB_BYTES or verb[:3] != PROTOCOL:
            self._skip_rest(part)
            raise Malformed(
                envelope,
                f"expected a first frame of {PROTOCOL!r} and one verb, found {verb[:20]!r}",
            )
        if not part.more:
            raise Malformed(envelope, "expected a JSON header frame behind the verb, found none")
        part = take(_NOBLOCK, _NO_COPY)
        header = part.bytes
        tensors = self._tensors() if part.more else []
        _check_size(envelope, header, tensors)
        return ClientMessage(envelope, verb[3:], header, tensors)

    def _rest_of_envelope(self, envelope: list[bytes], part: zmq.Frame) -> zmq.Frame:
        """Read on to the delimiter; give the frame behind it, or the last one there is."""
        while part.more:
            hop = part.bytes
            envelope.append(hop)
            part = self._take(_NOBLOCK, _NO_COPY)
            if not hop:
                return part
            if len(envelope) > _MAX_HOPS:
                break
        del envelope[1:]
        return part

    def _tensors(self) -> list[Data]:
        """Receive the rest without copying; beyond the limit frames are counted, not kept."""
        tensors: list[Data] = []
        take = self._take
        more = True
        while more:
            frame = take(_NOBLOCK, _NO_COPY)
            tensors.append(frame.buffer if len(tensors) < MAX_TENSORS else b"")
            more = frame.more
        return tensors

    def _skip_rest(self, part: zmq.Frame) -> None:
        while part.more:
            part = self._take(_NOBLOCK, _NO_COPY)


def _check_size(envelope: list[bytes], header: bytes, tensors: Sequence[Data]) -> None:
    if len(header) > MAX_HEADER_BYTES:
        raise Malformed(
            envelope, f"expected a header of at most {MAX_HEADER_BYTES} bytes, found {len(header)}"
        )
    if len(tensors) > MAX_TENSORS:
        raise Malformed(
            envelope, f"expected at most {MAX_TENSORS} tensor frames, found {len(tensors)}"
        )
    if tensors and (size := sum(map(len, tensors))) > _MAX_TENSOR_BYTES:
        raise Malformed(
            envelope, f"expected at most {_MAX_TENSOR_BYTES} bytes of tensors, found {size}"
        )


def _path_of(endpoint: str) -> str:
    if not endpoint.startswith(IPC + "/"):
        raise EndpointUnavailable(
            f"expected an endpoint such as ipc:///run/superbrain/infer.sock, found {endpoint!r}"
        )
    return endpoint.removeprefix(IPC)


def _check_free(path: str) -> None:
    """A second bind to a path steals it silently, so ask whether somebody answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            code = probe.connect_ex(path)
        except OSError as error:
            raise EndpointUnavailable(f"expected a usable socket path, found {path!r}") from error
    if code in {errno.ENOENT, errno.ECONNREFUSED}:  # nothing there, or left over by the dead
        return
    found = "somebody answers there" if code in {0, errno.EAGAIN} else os.strerror(code)
    raise EndpointUnavailable(
        f"expected to own {path}, found: {found}",
        mend="Is another superbrain running with the same endpoint?",
    )
