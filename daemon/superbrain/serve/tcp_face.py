"""The TCP face: lets clients in by CURVE and passes what they ask to the gateway.

    python -I -m superbrain.serve.tcp_face --ctl-fd N --gateway /run/superbrain/infer.sock
        --bind tcp://0.0.0.0:5555 --secret-key FILE --clients FOLDER

A process of its own beside the gateway: encryption and libzmq's threads cannot show in a local
request's latency, and whatever strangers on a network bring about ends here. One thread of ours,
one loop. The ROUTER's clients are those whose keys the folder holds; each has its own connection to
the gateway. Exit status: 0 when the daemon is gone, 2 for wrong arguments, 3 when keys or address
cannot be used.
"""

from __future__ import annotations

import resource
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec
import zmq

from superbrain.domain import ctl
from superbrain.serve import child
from superbrain.serve.ctl_channel import CtlChannel
from superbrain.serve.tcp_connections import HANDSHAKE_S, Connection, Connections
from superbrain.serve.tcp_guard import DOMAIN, Guard
from superbrain.serve.tcp_keys import read_clients, read_server_key
from superbrain.serve.tcp_peer import ANSWERS_AHEAD, TcpPeer, envelope_of
from superbrain.wire.errors import InvalidArgument, ResourceExhausted, SuperbrainError
from superbrain.wire.messages import ERROR, MAX_MESSAGE_BYTES, PROTOCOL, encode_error, salvage_id
from superbrain.wire.zmtp import ZmtpError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from superbrain.wire.curve import Certificate
    from superbrain.wire.lane import Data

HEARTBEAT_S: Final = 5.0
_MESSAGES_PER_TURN = 64
_RETRY_S = 0.02
# A client that takes no answer for this long is hung up on.
_PATIENCE_S = 30.0
_BACKLOG = 128
_REQUESTS_AHEAD = 16
_SCRATCH_BYTES = 1 << 16
_USE_FAILED = 3
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_SRCFD = int(zmq.SRCFD)


class AddressUnavailable(SuperbrainError):
    """The TCP address cannot be bound."""


class TcpFace:
    """The loop: daemon, guard, connections, requests, answers."""

    def __init__(
        self,
        options: argparse.Namespace,
        channel: CtlChannel[ctl.ToTcpFace],
        context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        """Read the keys, then bind: the guard is there before anybody can knock.

        Raises:
            SuperbrainError: a key or the folder of clients cannot be used, or an address not bound.
        """
        self._options = options
        self._channel = channel
        self._epoll = select.epoll()
        certificate = read_server_key(options.secret_key)
        self._guard = Guard(context, read_clients(options.clients))
        self._router = _make_router(context, certificate)
        self._connections = Connections(
            self._router, options.max_clients, self._guard.refusals, self._gone
        )
        self._peers: dict[bytes, TcpPeer] = {}
        self._links: dict[int, TcpPeer] = {}
        self._late: set[TcpPeer] = set()  # whom the gateway or the client itself keeps waiting
        self._cut = 0
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        for endpoint in options.bind:
            _bind(self._router, endpoint)
        fds = (channel.fileno(), self._guard.fd, self._connections.fd, self._router.fileno())
        for fd in fds:
            self._epoll.register(fd, select.EPOLLIN)

    def run(self) -> NoReturn:
        """Work until the daemon is gone."""
        more = False
        while True:
            for fd, _ in self._epoll.poll(0 if more else _RETRY_S if self._late else None):
                if fd == self._channel.fileno():
                    self._listen()
                elif (peer := self._links.get(fd)) is not None:
                    self._pass_answers(peer)
            now = time.monotonic()
            for peer in [*self._late]:
                self._try_again(peer, now)
            more = self._pump(now)

    def close(self) -> None:
        """Release all sockets; for tests, as the process simply ends."""
        for peer in self._peers.values():
            peer.drop_link()
        self._connections.close()
        self._guard.close()
        self._router.close()
        self._epoll.close()

    # --- clients ------------------------------------------------------------------------------

    def _pump(self, now: float) -> bool:
        """Do what libzmq has; true when there is more. Its descriptors tell of news only once."""
        for _ in range(_MESSAGES_PER_TURN):
            while self._guard.answer():
                pass
            if not int(self._router.get(_EVENTS)) & _POLLIN:
                self._connections.look(now)
                return bool(int(self._router.get(_EVENTS)) & _POLLIN)
            route, *frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            # libzmq tells of an end before it hands out what the next one on that number says.
            self._connections.look(now)
            self._take(route.bytes, frames, now)
        return True

    def _take(self, route: bytes, frames: list[zmq.Frame], now: float) -> None:
        peer = self._peers.get(route)
        if peer is None:
            peer = self._welcome(route, frames[0])
            if peer is None:
                return
        if peer.connection.cut:
            return
        parts: list[Data] = [frame.buffer if len(frame) > 4096 else frame.bytes for frame in frames]
        try:
            peer.admit()
        except ResourceExhausted as error:
            self._refuse(peer, parts, error, now)
            return
        peer.ask(parts)
        self._send_on(peer)

    def _welcome(self, route: bytes, frame: zmq.Frame) -> TcpPeer | None:
        """Make room for who speaks for the first time; None when it has gone, or may no longer."""
        connection = self._connections.sender(int(frame.get(_SRCFD)), route)
        if connection is None:
            return None
        connection.key = str(frame.get("User-Id"))
        options = self._options
        peer = TcpPeer(connection, options.gateway, options.requests_per_client)
        self._peers[route] = peer
        if connection.key not in self._guard.names:
            self._hang_up(peer, "its key was taken out of the folder of clients")
            return None
        return peer

    def _refuse(
        self, peer: TcpPeer, parts: list[Data], error: ResourceExhausted, now: float
    ) -> None:
        verb_at = envelope_of(parts)
        header = parts[verb_at + 1] if verb_at + 1 < len(parts) else b""
        answer = encode_error(error, salvage_id(header))
        if peer.behind or not self._hand_out(
            peer, [*parts[:verb_at], PROTOCOL + ERROR, answer], now
        ):
            self._hang_up(peer, "it sends requests and reads no answers")

    def _gone(self, connection: Connection) -> None:
        peer = self._peers.pop(connection.route, None)
        if peer is not None:
            self._forget_link(peer)
            self._late.discard(peer)

    def _hang_up(self, peer: TcpPeer, reason: str) -> None:
        connection = peer.connection
        name = self._guard.names.get(connection.key, "")
        child.log("tcp_client_cut", client=name, address=connection.address, reason=reason)
        self._cut += 1
        self._connections.cut(connection)
        self._forget_link(peer)
        self._late.discard(peer)

    # --- the gateway --------------------------------------------------------------------------

    def _send_on(self, peer: TcpPeer) -> None:
        known = peer.link
        if not peer.connect(self._epoll):
            self._late.add(peer)
            return
        assert peer.link is not None  # noqa: S101 - it is connected
        if known is None:
            self._links[peer.link.fd] = peer
        if peer.link.broken:
            self._lost_gateway(peer)
        else:
            peer.link.watch(self._epoll, reading=not peer.behind)
        if not (peer.behind or peer.waits_for_gateway):
            self._late.discard(peer)

    def _pass_answers(self, peer: TcpPeer) -> None:
        link = peer.link
        assert link is not None  # noqa: S101 - its descriptor was ready
        now = time.monotonic()
        link.flush()
        try:
            answers = [] if peer.behind else peer.answers(self._scratch)
        except (ZmtpError, InvalidArgument, MemoryError) as error:
            self._hang_up(peer, f"the gateway's answer to it cannot be read: {error}")
            return
        for frames in answers:
            peer.outstanding -= 1
            if peer.behind or not self._hand_out(peer, frames, now):
                peer.behind.append(frames)
        if peer.connection.cut:
            return
        if link.ended or link.broken:
            self._lost_gateway(peer)
        else:
            self._send_on(peer)

    def _lost_gateway(self, peer: TcpPeer) -> None:
        """Let the client know, by its own connection's end, if it waits for answers."""
        self._forget_link(peer)
        if peer.outstanding:
            self._hang_up(peer, "the gateway went away with requests of it; it will ask again")

    def _forget_link(self, peer: TcpPeer) -> None:
        if peer.link is not None:
            self._links.pop(peer.link.fd, None)
            peer.drop_link()

    def _hand_out(self, peer: TcpPeer, frames: list[Data], now: float) -> bool:
        """Give an answer to libzmq; false when the client has no room for it now."""
        try:
            self._router.send_multipart([peer.connection.route, *frames], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            if not peer.behind:
                peer.behind_since = now
            self._late.add(peer)
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:  # it has gone; the monitor will say so
                raise
        return True

    def _try_again(self, peer: TcpPeer, now: float) -> None:
        """Go on with a client that was kept waiting."""
        while peer.behind and self._hand_out(peer, peer.behind[0], now):
            del peer.behind[0]
            peer.behind_since = now
        if peer.behind and now - peer.behind_since > _PATIENCE_S:
            self._hang_up(peer, f"it took no answer for {_PATIENCE_S:g} s")
        elif not peer.behind:
            self._send_on(peer)

    # --- the daemon ---------------------------------------------------------------------------

    def _listen(self) -> None:
        for message in self._channel.listen(wait=False):
            self._channel.send(self._pong() if isinstance(message, ctl.Ping) else self._reread())

    def _pong(self) -> ctl.TcpPong:
        guard = self._guard
        return ctl.TcpPong(
            clients=len(self._peers),
            connections=len(self._connections),
            allowed=len(guard.names),
            accepted=guard.accepted,
            refused=guard.refusals.count,
            cut=self._cut,
        )

    def _reread(self) -> ctl.Message:
        """Read the folder of clients again and cut those that are no longer in it."""
        reply: ctl.Message = ctl.Done()
        try:
            names = read_clients(self._options.clients)
        except SuperbrainError as error:  # who was taken out cannot be told: nobody may stay
            names = {}
            reply = ctl.Failed(type(error).__name__, error.message, error.mend)
        gone = [peer for peer in self._peers.values() if peer.connection.key not in names]
        for peer in gone:
            if not peer.connection.cut:
                self._hang_up(peer, "its key was taken out of the folder of clients")
        self._guard.names = names
        return reply


def _make_router(
    context: zmq.Context[zmq.Socket[bytes]], certificate: Certificate
) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.set(zmq.CURVE_SERVER, 1)
    router.set(zmq.CURVE_SECRETKEY, certificate.secret.encode())
    router.set(zmq.ZAP_DOMAIN, DOMAIN.encode())
    router.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    router.set(zmq.ROUTER_MANDATORY, 1)
    router.set(zmq.LINGER, 0)
    router.set(zmq.SNDHWM, ANSWERS_AHEAD)
    router.set(zmq.RCVHWM, _REQUESTS_AHEAD)
    router.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    router.set(zmq.BACKLOG, _BACKLOG)
    router.set(zmq.HANDSHAKE_IVL, int(HANDSHAKE_S * 1000))
    router.set(zmq.HEARTBEAT_IVL, int(HEARTBEAT_S * 1000))
    router.set(zmq.HEARTBEAT_TIMEOUT, int(3 * HEARTBEAT_S * 1000))
    return router


def _bind(router: zmq.Socket[bytes], endpoint: str) -> None:
    router.set(zmq.IPV6, int("[" in endpoint))
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        raise AddressUnavailable(
            f"expected to bind {endpoint}, found: {error.strerror}",
            mend="Is the address one of this host's, and the port free? Look at: ss -ltnp",
        ) from error


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = child.argument_parser("superbrain-tcp-face", "Let clients in by TCP and CURVE.")
    parser.add_argument("--gateway", required=True, help="path of the gateway's socket")
    parser.add_argument("--bind", action="append", required=True, help="such as tcp://0.0.0.0:5555")
    parser.add_argument("--secret-key", type=Path, required=True, help="the server's certificate")
    parser.add_argument("--clients", type=Path, required=True, help="folder of NAME.pub")
    parser.add_argument("--max-clients", type=int, default=256)
    parser.add_argument("--requests-per-client", type=int, default=64)
    parser.add_argument("--memory-bytes", type=int, default=2 << 30)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    options = _options(arguments)
    channel = CtlChannel(child.adopt(options.ctl_fd), msgspec.msgpack.Decoder(ctl.ToTcpFace))
    # What clients can make libzmq keep ends this process, not the host.
    resource.setrlimit(resource.RLIMIT_AS, (options.memory_bytes, options.memory_bytes))
    try:
        face = TcpFace(options, channel, zmq.Context())
    except SuperbrainError as error:
        channel.send(ctl.TcpRefused(error.message, error.mend))
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        child.end(_USE_FAILED)
    channel.send(ctl.TcpReady())
    face.run()


if __name__ == "__main__":
    main(sys.argv[1:])
