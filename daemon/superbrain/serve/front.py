"""The public ZeroMQ socket: bind it safely, let clients in, hand their answers out.

The gateway speaks ZMTP itself (wire/zmtp.py), in its own loop: libzmq would put a thread of its own
between a client and the gateway (docs/decisions/0008-the-gateway-speaks-zmtp.md).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from superbrain.serve import child
from superbrain.serve.peer import ClientMessage, Envelope, Malformed, Peer
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import MAX_MESSAGE_BYTES, PROTOCOL
from superbrain.wire.zmtp import ZmtpError, encode

if TYPE_CHECKING:
    import select
    from collections.abc import Callable, Sequence

    from superbrain.serve.peer import UsualPeer
    from superbrain.wire.lane import Data

IPC = "ipc://"
_BACKLOG = 512
_MAX_PEERS = 4096
_SCRATCH_BYTES = 1 << 16
# A client that leaves more than this unread, all answers together, is hung up on.
_MAX_UNREAD_BYTES = MAX_MESSAGE_BYTES
_EPOLLIN = 1
# Who has not said by then that it speaks ZMTP is hung up on, at the daemon's next ping.
HANDSHAKE_S = 10.0


class EndpointUnavailable(SuperbrainError):
    """The public socket cannot be bound."""


class Front:
    """The bound socket and everybody connected to it."""

    def __init__(self, endpoint: str, epoll: select.epoll, group: int | None = None) -> None:
        """Bind `endpoint` for the owner and `group`; nobody is let in before `open`.

        Raises:
            EndpointUnavailable: it is no ipc endpoint, somebody answers on it, or the path cannot
                be used.
        """
        path = _path_of(endpoint)
        _check_free(path)
        self.peers: dict[int, Peer] = {}
        self.usual: dict[int, UsualPeer] = {}  # those on which nothing waits
        self.given_up = 0
        self.on_gone: Callable[[Peer], None] = _nobody_minds
        self._epoll = epoll
        self._answered: list[Peer] = []
        self._newest: deque[tuple[float, Peer]] = deque()
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._spare_fd = os.open(os.devnull, os.O_RDONLY)
        self._listener = _listen(endpoint, path, group)
        self.fd = self._listener.fileno()

    def open(self) -> None:
        """Let clients in."""
        self._epoll.register(self.fd, _EPOLLIN)

    def accept(self) -> None:
        """Let the next client in."""
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors: give up the spare one to turn the peer away
            child.log("client_refused", error=str(error))
            os.close(self._spare_fd)
            with suppress(OSError):
                self._listener.accept()[0].close()
            self._spare_fd = os.open(os.devnull, os.O_RDONLY)
            return
        if len(self.peers) >= _MAX_PEERS:
            self.hang_up_on_the_silent(time.monotonic())
        if len(self.peers) >= _MAX_PEERS:
            child.log("client_refused", error=f"expected at most {_MAX_PEERS} clients")
            sock.close()
            return
        peer = Peer(sock)
        self.peers[peer.fd] = peer
        self._newest.append((time.monotonic() + HANDSHAKE_S, peer))
        peer.watch(self._epoll)

    def hang_up_on_the_silent(self, now: float) -> None:
        """Let go of clients that have not shaken hands in time: they hold a descriptor each."""
        newest = self._newest
        while newest and (newest[0][0] <= now or newest[0][1].settled):
            _, peer = newest.popleft()
            if not peer.settled:
                child.log("client_closed", error="it did not finish its handshake in time")
                self._let_go(peer)

    def receive(
        self, peer: Peer, received: bytes | None = None
    ) -> Sequence[ClientMessage | Malformed]:
        """Read what a client has sent; one that breaks the protocol or has gone is let go.

        Args:
            peer: the client.
            received: what the compiled loop has read already, and has left; empty for its end.
        """
        messages: Sequence[ClientMessage | Malformed] = ()
        try:
            if received is not None:
                peer.ended = not received
                messages = peer.received(received)
            elif peer.patient:
                messages = peer.receive(self._scratch)
        except (ZmtpError, MemoryError) as error:
            child.log("client_closed", error=str(error))
            self._let_go(peer)
            return ()
        if peer.pending_bytes:
            peer.flush()
        self._settle(peer)
        return () if peer.ended else messages

    def keep(self, peer: Peer, written: Sequence[bytes], sent: int) -> None:
        """Keep what a client did not take of answers; see `StreamSocket.keep`."""
        peer.keep(written, sent)
        self._settle(peer)

    def reply(
        self, envelope: Envelope, verb: bytes, header: Data, tensors: Sequence[Data] = ()
    ) -> None:
        """Answer a message; the answer leaves with `flush`."""
        peer = envelope.peer
        if peer.ended:
            return
        if peer.post(encode([*envelope.frames, PROTOCOL + verb, header, *tensors])):
            self._answered.append(peer)

    def flush(self) -> None:
        """Send the answers of this turn: to each client all of its own at once."""
        for peer in self._answered:
            peer.deliver()
            self._settle(peer)
        self._answered.clear()

    def _settle(self, peer: Peer) -> None:
        """Decide how to go on with a client, which may be behind."""
        if peer.pending_bytes > _MAX_UNREAD_BYTES:
            self.given_up += 1
            child.log("client_closed", error="it sends requests and reads no answers")
            self._let_go(peer)
        elif peer.ended or peer.broken:
            self._let_go(peer)
        else:
            peer.watch(self._epoll, reading=peer.patient)
            self._mind(peer)

    def _mind(self, peer: Peer) -> None:
        """Keep what the compiled loop knows of a client."""
        usual = peer.usual
        if usual is None:
            self.usual.pop(peer.fd, None)
        else:
            self.usual[peer.fd] = usual

    def _let_go(self, peer: Peer) -> None:
        if self.peers.get(peer.fd) is peer:  # else its number is somebody else's already
            del self.peers[peer.fd]
            self.usual.pop(peer.fd, None)
        peer.close()
        self.on_gone(peer)


def _nobody_minds(_: Peer) -> None:
    """Stand in until somebody wants to know who has gone."""


def _listen(endpoint: str, path: str, group: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        Path(path).unlink(missing_ok=True)
        listener.bind(path)
        if group is not None:
            os.chown(path, -1, group)
        Path(path).chmod(0o660)
    except OSError as error:
        listener.close()
        raise EndpointUnavailable(f"expected to bind {endpoint}, found: {error}") from error
    finally:
        os.umask(umask)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _path_of(endpoint: str) -> str:
    if not endpoint.startswith(IPC + "/"):
        raise EndpointUnavailable(
            f"expected an endpoint such as ipc:///run/superbrain/infer.sock, found {endpoint!r}"
        )
    return endpoint.removeprefix(IPC)


def _check_free(path: str) -> None:
    """A bind behind an unlink would steal the path silently, so ask whether somebody answers."""
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
