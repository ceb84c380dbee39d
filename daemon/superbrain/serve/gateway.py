"""The gateway process: owns the public socket and passes requests to workers.

    python -I -m superbrain.serve.gateway --ctl-fd N --endpoint ipc:///run/superbrain/infer.sock

One thread, one poll loop. Everything that can take a millisecond happens in another process.
Exit status: 0 when the daemon is gone, 2 for wrong arguments, 3 when the socket cannot be bound.
"""

from __future__ import annotations

import gc
import math
import select
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import msgspec

from superbrain.domain import ctl
from superbrain.domain.records import RecordPolicy
from superbrain.serve import child
from superbrain.serve.admission import NEVER_NS
from superbrain.serve.ctl_channel import CtlChannel
from superbrain.serve.directory import PendingRequest
from superbrain.serve.front import EndpointUnavailable, Front
from superbrain.serve.gateway_records import GatewayRecords
from superbrain.serve.peer import ClientMessage, Malformed, Peer
from superbrain.serve.switching import Switching
from superbrain.serve.traffic import Traffic
from superbrain.transport import compiled
from superbrain.wire.errors import Internal
from superbrain.wire.messages import ERROR, INFER, PROTOCOL, RESULT, encode_error, salvage_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.transport._loop import Relay

_BIND_FAILED = 3
_MOST_TURNS = 256  # then deadlines and records are looked after


class Gateway:
    """The loop: wait, clients, lanes, daemon, deadlines, answers."""

    def __init__(
        self,
        front: Front,
        channel: CtlChannel[ctl.ToGateway],
        epoll: select.epoll,
        policy: RecordPolicy,
    ) -> None:
        self._front = front
        self._channel = channel
        self._epoll = epoll
        self._epoll.register(channel.fileno(), select.EPOLLIN)
        self._records = GatewayRecords(policy, channel) if policy.on else None
        self._traffic = Traffic(front, self._epoll, channel.send, self._records)
        self._switching = Switching(self._traffic, channel.send)
        self._relay: Relay | None = None
        module = compiled.loop()
        if module is not None:
            traffic = self._traffic
            traffic.relayed = True
            known = front.usual, traffic.usual, traffic.ways
            kinds = PROTOCOL + INFER, PROTOCOL + RESULT
            self._relay = module.Relay(*known, traffic.numbers, PendingRequest, *kinds)

    def run(self) -> NoReturn:
        """Work until the daemon is gone."""
        front, channel_fd, peers = self._front, self._channel.fileno(), self._front.peers
        traffic, switching = self._traffic, self._switching
        while True:
            for fd, _ in self._wait():
                peer = peers.get(fd)
                if peer is not None:
                    self._read(peer)
                elif fd == channel_fd:
                    self._listen()
                elif fd == front.fd:
                    front.accept()
                else:
                    traffic.lane_ready(fd)
            now_ns = time.monotonic_ns()
            switching.advance(now_ns)
            if now_ns >= traffic.wake_ns:
                traffic.expire(now_ns)
            traffic.deliver()
            front.flush()
            if self._records is not None:
                self._records.tell_if_many()

    def _wait(self) -> Sequence[tuple[int, int]]:
        """Give what is ready and for Python: what is usual has been done already."""
        sleep_s = self._sleep_s()
        if self._relay is None or self._switching.busy:
            return self._epoll.poll(sleep_s)
        front, traffic = self._front, self._traffic
        traffic.settle()
        sleep_ms = -1 if sleep_s is None else math.ceil(sleep_s * 1000)
        ready, found, unsent = self._relay.turns(self._epoll.fileno(), sleep_ms, _MOST_TURNS)
        for fd, written, sent in unsent:
            peer = front.peers.get(fd)
            if peer is not None:
                front.keep(peer, written, sent)
            else:
                traffic.keep(fd, written, sent)
        if found is not None:
            fd, received = found
            if not isinstance(received, bytes):
                traffic.lane_ready(fd, received)
            elif fd in front.peers:  # else it has just been let go, as it took no answer any more
                self._read(front.peers[fd], received)
        return ready

    def _sleep_s(self) -> float | None:
        """How long nothing needs to be done by itself; None for as long as nothing comes."""
        wake_ns = min(self._traffic.wake_ns, self._switching.wake_ns)
        return None if wake_ns == NEVER_NS else max(0.0, (wake_ns - time.monotonic_ns()) / 1e9)

    def _read(self, peer: Peer, received: bytes | None = None) -> None:
        for message in self._front.receive(peer, received):
            if isinstance(message, Malformed):
                self._traffic.malformed += 1
                self._front.reply(message.envelope, ERROR, encode_error(message))
            else:
                self._submit(message)

    def _submit(self, message: ClientMessage) -> None:
        try:
            self._traffic.submit(message)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must cost one request, not all
            request_id = salvage_id(message.header)
            child.log("gateway_mistake", request_id=request_id, error=repr(error))
            answer = Internal("expected to pass the request on, the gateway failed on it")
            header = encode_error(answer, request_id)
            self._front.reply(message.envelope, ERROR, header)

    def _listen(self) -> None:
        for message in self._channel.listen(wait=False):
            if isinstance(message, ctl.Ping):
                self._front.hang_up_on_the_silent(time.monotonic())
                if self._records is not None:
                    self._records.tell()
                self._channel.send(self._traffic.pong())
                if self._traffic.idle:
                    gc.collect()
            elif isinstance(message, ctl.Open):
                self._front.open()
                self._channel.send(ctl.Done())
            else:
                self._switching.take(message)


def _policy(text: str) -> RecordPolicy:
    return msgspec.json.decode(text, type=RecordPolicy)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    parser = child.argument_parser("superbrain-gateway", "Own the public socket, pass requests on.")
    parser.add_argument(
        "--endpoint", required=True, help="such as ipc:///run/superbrain/infer.sock"
    )
    parser.add_argument("--group", type=int, help="id of the group that may connect")
    parser.add_argument(
        "--records", type=_policy, default=RecordPolicy(), help="of which requests to tell, JSON"
    )
    options = parser.parse_args(arguments)
    channel = CtlChannel(child.adopt(options.ctl_fd), msgspec.msgpack.Decoder(ctl.ToGateway))
    epoll = select.epoll()
    try:
        front = Front(options.endpoint, epoll, options.group)
    except EndpointUnavailable as error:
        channel.send(ctl.Failed(type(error).__name__, error.message, error.mend))
        sys.stderr.write(f"{error}\n")
        sys.exit(_BIND_FAILED)
    gateway = Gateway(front, channel, epoll, options.records)
    # Nothing on the hot path makes cycles: count references only, collect when nothing travels.
    gc.collect()
    gc.freeze()
    gc.disable()
    channel.send(ctl.GatewayReady())
    gateway.run()


if __name__ == "__main__":
    main(sys.argv[1:])
