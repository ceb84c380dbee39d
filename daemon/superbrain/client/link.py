"""The way to one host: a DEALER socket to the gateway with its ledger, and lanes around it.

A `Link` never waits and knows no threads: its owner decides when to call it (`connection` for
threads, `asynchronous` for an event loop), one call at a time. What has to be known of ZeroMQ:

- `IMMEDIATE=1`: the socket takes a message only for a peer that is there, and drops its queue with
  the connection. So ZeroMQ never holds a request that the ledger does not know to be in doubt, and
  after a reconnect everything unanswered is sent exactly once. With 0, what lay in the queue would
  be sent by ZeroMQ and again by us.
- Between DISCONNECTED and HANDSHAKE_SUCCEEDED nothing is sent: in that gap the old queue may still
  take messages and lose them. Both events come in order with the queue's end and the new one.
- `RCVHWM=0`: a gateway drops the answers of a peer that does not take them, and what can come is
  bounded by what was asked.
- `LINGER=0`: on close nobody is left who would read the answers.
- A socket's FD reports news once (edge-triggered), and any use of the socket may consume them. So
  every use goes through `pump`, which ends only when there is nothing to read and to send.
- `HEARTBEAT_*` for TCP alone: a network may fall silent, the peer of a Unix socket cannot.
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import zmq

from superbrain.client.alike import Last
from superbrain.client.endpoint import CurveKeys, probe
from superbrain.client.handshake import WATCHED, Handshake
from superbrain.client.lanes import Lanes
from superbrain.client.ledger import Exchange, Ledger
from superbrain.client.region import Region
from superbrain.client.result import Result
from superbrain.transport.brief_wait import BriefWait
from superbrain.wire.errors import DeadlineExceeded, InvalidArgument, SuperbrainError

RECONNECT_MS = 10
RECONNECT_MAX_MS = 320
HEARTBEAT_MS = 5_000
_EVENT = struct.Struct("=H")
_MOMENT_NS = 400_000  # an answer is worth more waiting for than the next question is to a worker
# pyzmq's enums cost a microsecond each time they are combined or looked up.
_EVENTS = int(zmq.EVENTS)
_RCVMORE = int(zmq.RCVMORE)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)
_NOBLOCK = int(zmq.NOBLOCK)
_SEND_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class _Sockets(NamedTuple):
    context: zmq.Context[zmq.Socket[bytes]]
    dealer: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]


class Link:
    """The way to one gateway, and with `lanes` around it, straight to the workers.

    Attributes:
        connected: a gateway has shaken hands and has not gone since.
        ever_connected: one has, some time.
        ledger: the requests at the gateway without an outcome.
    """

    def __init__(
        self, endpoint: str, curve: CurveKeys | None = None, *, lanes: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.connected = False
        self.ever_connected = False
        self.ledger = Ledger(os.urandom(3).hex())
        self._curve = curve
        self._handshake = Handshake(endpoint, curve)
        self._refused = False
        self._sockets: _Sockets | None = None
        self._epoll: select.epoll | None = None
        self._wait: BriefWait | None = None
        self._dealer_fd = self._monitor_fd = -1
        self._uses_lanes = lanes and endpoint.startswith("ipc:")  # a lane is a path of this host
        self._lanes: Lanes | None = None

    def open(self) -> bool:
        """Make the sockets unless they are there; tell whether this call made them.

        Raises:
            Unavailable: nobody listens, or this user may not connect.
            InvalidArgument: ZeroMQ refuses the endpoint or the keys.
        """
        if not self.ever_connected:
            probe(self.endpoint)
        if self._sockets is not None:
            return False
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._sockets = self._make(context)
        except zmq.ZMQError as error:
            context.destroy(linger=0)
            msg = f"expected an endpoint and keys that ZeroMQ takes, found {self.endpoint}: {error}"
            raise InvalidArgument(msg) from error
        self._epoll = select.epoll()
        self._wait = BriefWait(self._epoll, _MOMENT_NS)
        self._dealer_fd = self._sockets.dealer.fileno()
        self._monitor_fd = self._sockets.monitor.fileno()
        self.watch(self._dealer_fd)
        self.watch(self._monitor_fd)
        if self._uses_lanes:
            self._lanes = Lanes(self._epoll, self.overdue)
        return True

    @property
    def fd(self) -> int:
        """A descriptor that becomes readable when `poll` has news."""
        return self._opened_epoll().fileno()

    def watch(self, fd: int) -> None:
        """Let `poll` report one more descriptor; what it reports `pump` ignores."""
        self._opened_epoll().register(fd, select.EPOLLIN)

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        """Wait for news for `pump`. Any thread may, while others use the link."""
        return self._opened_wait().poll(timeout_s)

    def send(self, exchange: Exchange) -> list[Exchange]:
        """Take in a request and send it as soon as there is somebody; else as `pump`."""
        self.ledger.enter(exchange)
        lanes = self._lanes
        if lanes is not None and exchange.call.model and lanes.take(exchange):
            return self._pump_gateway(watch=False) if lanes.questions else []
        self.ledger.add(exchange)
        if self._refused:  # ZeroMQ has given up; who asks again wants to know how it is now
            self._refused = False
            self._opened().dealer.connect(self.endpoint)
        return self._pump_gateway(watch=not self.connected)

    def ask(
        self, last: Last, inputs: Mapping[str, Any], deadline: float
    ) -> Result | Exchange | None:
        """Send a request like the last and look for its answer, as `send` and `look`, in one step.

        Give what was answered, or the exchange that goes on; None where it is not the usual case:
        a single lane with nothing else under way, which is expected to answer within a moment, and
        inputs that are alike. Where it is an exchange, `pump` comes next.
        """
        lanes = self._lanes
        if lanes is None or self._wait is None or not self._wait.brief:
            return None
        return lanes.ask(last, inputs, deadline, self.ledger, self._wait)

    def look(self) -> list[Exchange]:
        """Look for the answer to the last request, where it comes straight, for a moment at most.

        Give what was answered. Whoever calls this keeps the others from the link for that moment.
        """
        lanes = self._lanes
        if lanes is None:
            return []
        settled = lanes.look(self._opened_wait())
        if lanes.has_mail:
            settled += self._pump_gateway(watch=False)
        return settled

    def pump(self, ready: Iterable[tuple[int, int]]) -> list[Exchange]:
        """Do all that can be done without waiting; give the exchanges that got their outcome.

        Args:
            ready: what `poll` reported.
        """
        settled: list[Exchange] = []
        lanes = self._lanes
        gateway = watch = False
        for fd, _ in ready:
            answered = lanes.ready(fd) if lanes is not None else None
            if answered is not None:
                settled += answered
            elif fd == self._dealer_fd:
                gateway = True
            elif fd == self._monitor_fd:
                watch = True
        if gateway or watch or (lanes is not None and lanes.has_mail):
            settled += self._pump_gateway(watch=watch)
        return settled

    def _pump_gateway(self, *, watch: bool) -> list[Exchange]:
        """Send to the gateway and read from it until neither goes on."""
        sockets = self._opened()
        settled = self._read_monitor(sockets) if watch else []
        if settled and self._lanes is not None:
            settled = [exchange for exchange in settled if not self._lanes.resolved(exchange)]
        if self._lanes is not None:
            for mail in self._lanes.take_mail():
                self.ledger.add(mail)
        dealer = sockets.dealer
        while True:
            events: Any = dealer.get(_EVENTS)
            if events & _POLLIN:
                exchange = self.ledger.settle(_receive(dealer))
            elif events & _POLLOUT and self.connected and self.ledger.unsent:
                exchange = self._send_next(dealer)
            else:
                return settled
            if exchange is None or (self._lanes is not None and self._lanes.resolved(exchange)):
                continue
            settled.append(exchange)

    def fail_all(self, error: SuperbrainError) -> list[Exchange]:
        """Settle everything with `error`; give what was settled."""
        ended = self.ledger.fail_all(error)
        for exchange in self._lanes.close() if self._lanes is not None else ():
            exchange.fail(error)
            ended.append(exchange)
        return ended

    def release(self, regions: Iterable[Region]) -> None:
        """Let workers forget shared memory, and let go of it here."""
        for region in regions:
            if self._lanes is not None:
                self._lanes.release(region)
            region.close()

    def overdue(self, exchange: Exchange) -> DeadlineExceeded:
        """Build the error of an exchange whose deadline passed without an answer."""
        what = exchange.call.what
        if self.connected:
            msg = f"{what}: no answer within the time given"
            return DeadlineExceeded(msg, mend="`superbrain status` shows latency and queue")
        suspicion = self._handshake.suspicion()
        if suspicion is not None:
            return DeadlineExceeded(f"{what}: {suspicion.message}", mend=suspicion.mend)
        msg = f"{what}: the connection to {self.endpoint} was lost and did not come back in time"
        return DeadlineExceeded(msg, mend="Look at: systemctl status superbraind")

    def close(self) -> None:
        """Release the sockets; what has no outcome must have been settled before."""
        if self._sockets is None:
            return
        context, dealer, monitor = self._sockets
        self._sockets = None
        self.connected = False
        if self._lanes is not None:
            self._lanes.close()
        self._opened_epoll().close()
        self._epoll = self._wait = None
        dealer.disable_monitor()
        monitor.close(linger=0)
        dealer.close(linger=0)
        context.term()

    def _send_next(self, dealer: zmq.Socket[bytes]) -> Exchange | None:
        """Send one; an exchange comes back only if its deadline has passed before."""
        exchange = self.ledger.next_to_send()
        if exchange is None:
            return None
        now = time.monotonic()
        if now >= exchange.deadline:
            self.ledger.forget(exchange)
            exchange.fail(self.overdue(exchange))
            return exchange
        frames = exchange.frames(now)
        # The socket said that it takes a message; it then takes all its frames.
        for frame in frames[:-1]:
            dealer.send(frame, _SEND_MORE)
        dealer.send(frames[-1], _NOBLOCK)
        return None

    def _read_monitor(self, sockets: _Sockets) -> list[Exchange]:
        """Take note of what became of the connection; give what a refusal has settled."""
        refusal: SuperbrainError | None = None
        while True:
            events: Any = sockets.monitor.get(_EVENTS)
            if not events & _POLLIN:
                break
            event = _EVENT.unpack_from(sockets.monitor.recv_multipart(_NOBLOCK)[0])[0]
            refusal = self._handshake.event(event) or refusal
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected = self.ever_connected = True
                refusal = None
            elif event == zmq.EVENT_DISCONNECTED:
                self.connected = False
                self.ledger.lost()
        if refusal is None or self._refused:
            return []
        self._refused = True
        with suppress(zmq.ZMQError):  # it may have forgotten the endpoint already
            sockets.dealer.disconnect(self.endpoint)
        return self.ledger.fail_all(refusal)

    def _make(self, context: zmq.Context[zmq.Socket[bytes]]) -> _Sockets:
        dealer = context.socket(zmq.DEALER)
        dealer.set(zmq.IMMEDIATE, 1)
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.RCVHWM, 0)
        dealer.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        dealer.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        if self.endpoint.startswith("tcp:"):
            dealer.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            dealer.set(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)
            dealer.set(zmq.IPV6, int("[" in self.endpoint))
        if self._curve is not None:
            dealer.set(zmq.CURVE_SERVERKEY, self._curve.server.encode())
            dealer.set(zmq.CURVE_PUBLICKEY, self._curve.public.encode())
            dealer.set(zmq.CURVE_SECRETKEY, self._curve.secret.encode())
        dealer.monitor("inproc://monitor", WATCHED)
        monitor = context.socket(zmq.PAIR)
        # Without a limit: at its limit a monitor stops the whole context until it is read.
        monitor.set(zmq.RCVHWM, 0)
        monitor.set(zmq.LINGER, 0)
        monitor.connect("inproc://monitor")
        dealer.connect(self.endpoint)
        return _Sockets(context, dealer, monitor)

    def _opened_wait(self) -> BriefWait:
        if self._wait is None:
            msg = "Link.open comes before its use"
            raise RuntimeError(msg)
        return self._wait

    def _opened_epoll(self) -> select.epoll:
        if self._epoll is None:
            msg = "Link.open comes before its use"
            raise RuntimeError(msg)
        return self._epoll

    def _opened(self) -> _Sockets:
        if self._sockets is None:
            msg = "Link.open comes before its use"
            raise RuntimeError(msg)
        return self._sockets


def _receive(dealer: zmq.Socket[bytes]) -> list[Any]:
    """Give verb and header as bytes and each tensor as the memory ZeroMQ received it in."""
    first = dealer.recv(_NOBLOCK)
    if not first and dealer.get(_RCVMORE):  # the delimiter of REQ and REP
        first = dealer.recv(_NOBLOCK)
    frames: list[Any] = [first]
    more: Any = dealer.get(_RCVMORE)
    if more:
        frames.append(dealer.recv(_NOBLOCK))
        more = dealer.get(_RCVMORE)
    while more:
        frame = dealer.recv(_NOBLOCK, copy=False)
        frames.append(frame.buffer)
        more = frame.more
    return frames
