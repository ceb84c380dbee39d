"""The way to one host: a connection to the gateway with its ledger, and lanes around it.

A `Link` never waits and knows no threads: its owner decides when to call it (`connection` for
threads, `asynchronous` for an event loop), one call at a time.

A signal's handler may raise between any two steps here: after bytes were read and before they were
kept, when half of a frame was sent. So whoever begins to use a link says so, and says when it is
done; if it never was, the link is `torn`, and the next one starts over with new connections. What
has no outcome is sent again on them, wherever it was; for that it is put where it goes before it is
taken from where it is.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from superbrain.client.alike import Last, LastShared
from superbrain.client.endpoint import CurveKeys, probe
from superbrain.client.gateway import Gateway
from superbrain.client.lanes import Lanes
from superbrain.client.ledger import Exchange, Ledger
from superbrain.client.region import Region
from superbrain.client.result import Result
from superbrain.client.unix_gateway import UnixGateway
from superbrain.transport.brief_wait import BriefWait
from superbrain.wire.errors import DeadlineExceeded, SuperbrainError

if TYPE_CHECKING:
    from superbrain.transport._loop import Shortcut
    from superbrain.transport.lane_socket import Asked

_MOMENT_NS = 400_000  # an answer is worth more waiting for than the next question is to a worker
_NOT_OPENED = "Link.open comes before its use"


class Link:
    """The way to one gateway, and with `lanes` around it, straight to the workers.

    Attributes:
        ever_connected: a gateway has shaken hands, some time.
        torn: whoever used it was interrupted in the middle; `start_over` comes first.
        ledger: the requests at the gateway without an outcome.
    """

    def __init__(
        self, endpoint: str, curve: CurveKeys | None = None, *, lanes: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.ever_connected = False
        self.torn = False
        self.ledger = Ledger(os.urandom(3).hex())
        self._curve = curve
        self._gateway: Gateway | None = None
        self._epoll: select.epoll | None = None
        self._wait: BriefWait | None = None
        self._uses_lanes = lanes and endpoint.startswith("ipc:")  # a lane is a path of this host
        self._lanes: Lanes | None = None

    def open(self, wakes: int | None = None) -> bool:
        """Begin to connect unless that was done; tell whether this call did.

        Args:
            wakes: a descriptor that `poll` reports too; what it reports `pump` ignores.

        Raises:
            Unavailable: nobody listens, or this user may not connect.
            InvalidArgument: ZeroMQ refuses the endpoint or the keys.
        """
        if not self.ever_connected:
            probe(self.endpoint)
        if self._gateway is not None:
            return False
        epoll = select.epoll()
        try:
            if wakes is not None:
                epoll.register(wakes, select.EPOLLIN)
            wait = BriefWait(epoll, _MOMENT_NS)
            lanes = self._make_lanes(epoll, wait)
            gateway = connect(self.endpoint, self._curve, epoll)
        except BaseException:
            epoll.close()
            raise
        self._epoll, self._wait, self._lanes, self._gateway = epoll, wait, lanes, gateway
        return True

    def _make_lanes(self, epoll: select.epoll, wait: BriefWait) -> Lanes | None:
        return Lanes(epoll, wait, self.ledger, self.overdue) if self._uses_lanes else None

    def start_over(self) -> None:
        """Connect anew and send again all that has no outcome, for the link is `torn`.

        This may be interrupted as well, and then it comes first once more.
        """
        self.torn = True
        gateway, lanes = self._gateway, self._lanes
        if gateway is not None:
            if lanes is not None:
                for exchange in lanes.unanswered():
                    self.ledger.add(exchange)
                self._lanes = self._make_lanes(self._opened_epoll(), self._opened_wait())
                lanes.close(died=False)
            self.ledger.lost()
            self._gateway = connect(self.endpoint, self._curve, self._opened_epoll())
            gateway.close()
        self.torn = False

    @property
    def connected(self) -> bool:
        """Whether a gateway has shaken hands and has not gone since."""
        return self._gateway is not None and self._gateway.connected

    @property
    def retry_at(self) -> float | None:
        """When `pump` is due though `poll` has nothing to report, as `time.monotonic` counts."""
        gateway = self._gateway
        return gateway.retry_at if gateway is not None and self.ledger else None

    @property
    def fd(self) -> int:
        """A descriptor that becomes readable when `poll` has news."""
        return self._opened_epoll().fileno()

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        """Wait for news for `pump`, which is also due when there are none.

        Any thread may, while others use the link.
        """
        retry_at = self.retry_at
        if retry_at is not None:
            timeout_s = min(timeout_s, max(0.0, retry_at - time.monotonic()))
        return self._opened_wait().poll(timeout_s)

    def send(self, exchange: Exchange) -> list[Exchange]:
        """Take in a request and send it as soon as there is somebody; else as `pump`."""
        self.torn = True
        self.ledger.enter(exchange)
        lanes = self._lanes
        if lanes is not None and exchange.call.model and lanes.take(exchange):
            settled = self._pump_gateway(watch=False) if lanes.questions else []
        else:
            self.ledger.add(exchange)
            self._opened_gateway().ask_again()
            # Who asks much and waits later must not leave all the answers with the gateway.
            settled = self._pump_gateway(watch=not self.connected or len(self.ledger) > 1)
        self.torn = False
        return settled

    def ask(
        self, last: Last, inputs: Mapping[str, Any], deadline: float
    ) -> Result | Exchange | None:
        """Send a request like the last and look for its answer, as `send` and `look`, in one step.

        Give what was answered, or the exchange that goes on; None where it is not the usual case:
        a single lane with nothing else under way, which is expected to answer within a moment, and
        inputs that are alike. Where it is an exchange, `pump` comes next.
        """
        lanes = self._lanes
        if lanes is None or self.torn or self._wait is None or not self._wait.brief:
            return None
        self.torn = True
        answer = lanes.ask(last, inputs, deadline)
        self.torn = False
        return answer

    def shortcut(self, last: Last | LastShared, connection: tuple[object, ...]) -> Shortcut | None:
        """Give the shortcut for requests like one that `ask` has answered; None where none can.

        It is good until anything else is done here.

        Args:
            last: as for `ask`.
            connection: what only that knows: see `Connection`.
        """
        return None if self._lanes is None else self._lanes.shortcut(last, connection)

    def asked(
        self,
        last: Last | LastShared,
        inputs: Mapping[str, Any],
        number: int,
        deadline: float,
        done: Asked | Exception,
    ) -> Exchange:
        """Give the exchange with which a request goes on that a shortcut has begun; `pump` is next.

        Args:
            last: as for `ask`.
            inputs: as for `ask`.
            number: of the request.
            deadline: as for `ask`.
            done: how far it came, or what it raised.
        """
        assert self._lanes is not None  # noqa: S101 - it has given the shortcut
        self.torn = True
        exchange = self._lanes.asked(last, inputs, number, deadline, done)
        self.torn = False
        return exchange

    def look(self) -> list[Exchange]:
        """Look for the answer to the last request, where it comes straight, for a moment at most.

        Give what was answered. Whoever calls this keeps the others from the link for that moment.
        """
        lanes = self._lanes
        if lanes is None:
            return []
        self.torn = True
        settled = lanes.look()
        if lanes.has_mail:
            settled += self._pump_gateway(watch=False)
        self.torn = False
        return settled

    def pump(self, ready: Iterable[tuple[int, int]]) -> list[Exchange]:
        """Do all that can be done without waiting; give the exchanges that got their outcome.

        Args:
            ready: what `poll` reported.
        """
        self.torn = True
        settled: list[Exchange] = []
        lanes, gateway = self._lanes, self._opened_gateway()
        watch = not gateway.connected
        for fd, _ in ready:
            answered = lanes.ready(fd) if lanes is not None else None
            if answered is not None:
                settled += answered
            elif gateway.owns(fd):
                watch = True
        if watch or (lanes is not None and lanes.has_mail):
            settled += self._pump_gateway(watch=watch)
        self.torn = False
        return settled

    def _pump_gateway(self, *, watch: bool) -> list[Exchange]:
        """Send to the gateway and read from it until neither goes on."""
        gateway = self._opened_gateway()
        settled = self._catch_up(gateway) if watch else []
        if self._lanes is not None and self._lanes.has_mail:
            for mail in self._lanes.mail:
                self.ledger.add(mail)
            self._lanes.take_mail()
        while True:
            frames = gateway.receive()
            if frames is not None:
                exchange = self.ledger.settle(frames)
            elif gateway.takes and self.ledger.unsent:
                exchange = self._send_next(gateway)
            else:
                return settled
            if exchange is None or (self._lanes is not None and self._lanes.resolved(exchange)):
                continue
            settled.append(exchange)

    def _catch_up(self, gateway: Gateway) -> list[Exchange]:
        """Take note of what became of the connection; give what a refusal has settled."""
        change = gateway.catch_up()
        self.ever_connected |= gateway.connected
        if change.lost:
            self.ledger.lost()
        if change.refusal is None:
            return []
        refused = self.ledger.fail_all(change.refusal)
        lanes = self._lanes
        return [one for one in refused if lanes is None or not lanes.resolved(one)]

    def fail_all(self, error: SuperbrainError) -> list[Exchange]:
        """Settle everything with `error`; give what was settled."""
        ended = self.ledger.fail_all(error)
        for exchange in self._lanes.close() if self._lanes is not None else ():
            exchange.fail(error)
            ended.append(exchange)
        return ended

    def release(self, regions: Iterable[Region]) -> None:
        """Let workers forget shared memory, and let go of it here."""
        self.torn = True
        for region in regions:
            if self._lanes is not None:
                self._lanes.release(region)
            region.close()
        self.torn = False

    def overdue(self, exchange: Exchange) -> DeadlineExceeded:
        """Build the error of an exchange whose deadline passed without an answer."""
        what = exchange.call.what
        if self.connected:
            msg = f"{what}: no answer within the time given"
            return DeadlineExceeded(msg, mend="`superbrain status` shows latency and queue")
        suspicion = self._gateway.suspicion() if self._gateway is not None else None
        if suspicion is not None:
            return DeadlineExceeded(f"{what}: {suspicion.message}", mend=suspicion.mend)
        msg = f"{what}: the connection to {self.endpoint} was lost and did not come back in time"
        return DeadlineExceeded(msg, mend="Look at: systemctl status superbraind")

    def close(self) -> None:
        """Release the sockets; what has no outcome must have been settled before."""
        if self._gateway is None:
            return
        if self._lanes is not None:
            self._lanes.close()
        self._gateway.close()
        self._gateway = None
        self._opened_epoll().close()
        self._epoll = self._wait = None

    def _send_next(self, gateway: Gateway) -> Exchange | None:
        """Send one; an exchange comes back only if its deadline has passed before."""
        exchange = self.ledger.next_to_send()
        if exchange is None:
            return None
        now = time.monotonic()
        if now >= exchange.deadline:
            exchange.fail(self.overdue(exchange))
            self.ledger.forget(exchange)
            return exchange
        gateway.send(exchange.frames(now))
        return None

    def _opened_wait(self) -> BriefWait:
        if self._wait is None:
            raise RuntimeError(_NOT_OPENED)
        return self._wait

    def _opened_epoll(self) -> select.epoll:
        if self._epoll is None:
            raise RuntimeError(_NOT_OPENED)
        return self._epoll

    def _opened_gateway(self) -> Gateway:
        if self._gateway is None:
            raise RuntimeError(_NOT_OPENED)
        return self._gateway


def connect(endpoint: str, curve: CurveKeys | None, epoll: select.epoll) -> Gateway:
    """Begin to connect to a gateway, whose news are reported to `epoll`.

    Raises:
        InvalidArgument: ZeroMQ refuses the endpoint or the keys.
    """
    if endpoint.startswith("ipc:") and curve is None:
        return UnixGateway(endpoint, epoll)
    from superbrain.client.zmq_gateway import ZmqGateway

    return ZmqGateway(endpoint, curve, epoll)
