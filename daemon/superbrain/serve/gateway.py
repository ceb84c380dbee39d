"""The gateway process: owns the public socket and passes requests to workers.

    python -I -m superbrain.serve.gateway --ctl-fd N --endpoint ipc:///run/superbrain/infer.sock

One thread, one poll loop. Everything that can take a millisecond happens in another process.
Exit status: 0 when the daemon is gone, 2 for wrong arguments, 3 when the socket cannot be bound.
"""

from __future__ import annotations

import gc
import select
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import msgspec

from superbrain.domain import ctl
from superbrain.serve import child
from superbrain.serve.admission import NEVER_NS
from superbrain.serve.ctl_channel import ChannelEnded, CtlChannel
from superbrain.serve.front import EndpointUnavailable, Front, Malformed
from superbrain.serve.replies import RETRY_S
from superbrain.serve.switching import Switching
from superbrain.serve.traffic import Traffic
from superbrain.wire.errors import Internal
from superbrain.wire.messages import ERROR, encode_error, salvage_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.serve.front import ClientMessage

# Then lanes and daemon get their turn.
_MESSAGES_PER_TURN = 64
_BIND_FAILED = 3


class Gateway:
    """The loop: lanes, daemon, deadlines, clients, sleep."""

    def __init__(self, front: Front, channel: CtlChannel[ctl.ToGateway]) -> None:
        self._front = front
        self._channel = channel
        self._epoll = select.epoll()
        self._epoll.register(channel.fileno(), select.EPOLLIN)
        self._traffic = Traffic(front, self._epoll, channel.send)
        self._switching = Switching(self._traffic, channel.send)
        self._open = False

    def run(self) -> NoReturn:
        """Work until the daemon is gone."""
        front_fd, channel_fd = self._front.fd, self._channel.fileno()
        traffic, switching, replies = self._traffic, self._switching, self._front.replies
        more = True
        while True:
            timeout_s = 0 if more else self._sleep_s()
            for fd, _ in self._epoll.poll(timeout_s):
                if fd == channel_fd:
                    self._listen()
                elif fd != front_fd:
                    traffic.lane_ready(fd)
            now_ns = time.monotonic_ns()
            switching.advance(now_ns)
            if now_ns >= traffic.wake_ns:
                traffic.expire(now_ns)
            if replies.behind:
                replies.retry()
            more = self._receive_some()

    def _sleep_s(self) -> float | None:
        """How long nothing needs to be done by itself; None for as long as nothing comes."""
        if self._front.replies.behind:
            return RETRY_S
        wake_ns = min(self._traffic.wake_ns, self._switching.wake_ns)
        return None if wake_ns == NEVER_NS else max(0.0, (wake_ns - time.monotonic_ns()) / 1e9)

    def _receive_some(self) -> bool:
        """Take in what clients sent; True when more may be left.

        No send may come after the last look at the socket: its descriptor reports changes only.
        """
        for _ in range(_MESSAGES_PER_TURN if self._open else 0):
            try:
                message = self._front.receive()
            except Malformed as error:
                self._traffic.malformed += 1
                self._front.replies.send(error.envelope, ERROR, encode_error(error))
                continue
            if message is None:
                return False
            self._submit(message)
        return self._open

    def _submit(self, message: ClientMessage) -> None:
        try:
            self._traffic.submit(message)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must cost one request, not all
            child.log("gateway_mistake", error=repr(error))
            answer = Internal("expected to pass the request on, the gateway failed on it")
            header = encode_error(answer, salvage_id(message.header))
            self._front.replies.send(message.envelope, ERROR, header)

    def _listen(self) -> None:
        try:
            messages = self._channel.receive(wait=False)
        except ChannelEnded:
            child.end()
        except ctl.CtlError as error:
            child.log("control_channel_broken", error=str(error))
            child.end(1)
        for message in messages:
            if isinstance(message, ctl.Ping):
                self._channel.send(self._traffic.pong())
                if self._traffic.idle:
                    gc.collect()
            elif isinstance(message, ctl.Open):
                self._open = True
                self._epoll.register(self._front.fd, select.EPOLLIN)
                self._channel.send(ctl.Done())
            else:
                self._switching.take(message)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    parser = child.argument_parser("superbrain-gateway", "Own the public socket, pass requests on.")
    parser.add_argument(
        "--endpoint", required=True, help="such as ipc:///run/superbrain/infer.sock"
    )
    options = parser.parse_args(arguments)
    channel = CtlChannel(child.adopt(options.ctl_fd), msgspec.msgpack.Decoder(ctl.ToGateway))
    try:
        front = Front(options.endpoint)
    except EndpointUnavailable as error:
        channel.send(ctl.Failed(type(error).__name__, error.message, error.mend))
        sys.stderr.write(f"{error}\n")
        sys.exit(_BIND_FAILED)
    gateway = Gateway(front, channel)
    # Nothing on the hot path makes cycles: count references only, collect when nothing travels.
    gc.collect()
    gc.freeze()
    gc.disable()
    channel.send(ctl.GatewayReady())
    gateway.run()


if __name__ == "__main__":
    main(sys.argv[1:])
