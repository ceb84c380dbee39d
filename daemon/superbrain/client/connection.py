"""Many threads on one link, without a thread of its own: whoever waits also reads for the others.

One lock guards every use of the link. Of the threads that wait, one leads: it polls the link's
descriptors outside the lock, and then, under the lock, hands every answer to its exchange. The
others sleep on a bell (a lock) each. A leader that has its answer rings one of them, who leads on.
So a single caller sees no thread switch at all, and an answer wakes exactly the threads that it
concerns. Whoever sends also reads, because sending may consume the news that the leader's poll
waits for; if that brought the leader's own answer, an eventfd wakes it.

A signal's handler may raise at any point of a request. Whoever ends by an exception breaks off:
the link starts over if it was in use, and everybody who sleeps is woken, looks for itself, and
leads if nobody does. So a request that was given up takes none with it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from superbrain.client.alike import Last, LastShared
from superbrain.client.calls import Call
from superbrain.client.endpoint import CurveKeys
from superbrain.client.ledger import Exchange
from superbrain.client.link import Link
from superbrain.client.region import Region
from superbrain.client.result import Result
from superbrain.transport.descriptor import Descriptor
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from superbrain.transport._loop import Shortcut
    from superbrain.transport.lane_socket import Asked

T = TypeVar("T")
_LONGEST_SLEEP_S = 3600.0
_SEVERAL = -1


class ClientClosed(SuperbrainError):
    """The client was closed, or it is used in a process that inherited it by a fork."""


class Cancelled(SuperbrainError):
    """The caller gave the request up."""


class Begun(NamedTuple):
    """A request that is under way, and whether its caller reads for everybody meanwhile."""

    exchange: Exchange
    leads: bool


class Connection:
    """A link that the threads of one process share; opened by the first request.

    Attributes:
        shortcuts: by model, or by what is in shared memory, for requests like the last of a thread
            that is alone here: their `ask` gives a `Result`, or a `Begun` to `settle`, or None when
            nothing was asked. They are gone, and not `good` any more, as soon as anything else is
            done with the link.
    """

    def __init__(
        self, endpoint: str, curve: CurveKeys | None = None, *, lanes: bool = True
    ) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._link = Link(endpoint, curve, lanes=lanes)
        self._leading: Exchange | None = None
        self._leader = 0  # its thread
        self._asleep: dict[threading.Lock, None] = {}
        self._wakes_leader: Descriptor | None = None  # an eventfd
        self._closed = False
        self.shortcuts: dict[object, Shortcut] = {}
        self._user = 0  # the thread that sends; `_SEVERAL` once there was another

    def send(self, exchange: Exchange) -> None:
        """Start a request.

        Raises:
            Unavailable: nobody listens at the endpoint and nobody has before.
            ClientClosed: this client is closed.
        """
        try:
            with self._lock:
                self._start(exchange)
        except BaseException:
            self.break_off(exchange)
            raise

    def ask(self, call: Call[T], deadline: float, last: LastShared | None = None) -> T:
        """Send a request and wait for what it ends with; of this process alone.

        The same as `Pending(…).result()`, in fewer steps for a caller who is alone here. With
        `last` the next request like it may be by its shortcut.

        Raises:
            DeadlineExceeded: its deadline has passed; it is forgotten.
            SuperbrainError: as `send`, and what the request ended with.
        """
        exchange = Exchange(call, deadline)
        try:
            with self._lock:
                self._start(exchange)
                leads = not self._is_led() and not exchange.settled
                if leads and self._user != _SEVERAL:
                    self._ring_for(self._used().look())
                    leads = not exchange.settled
                    if last is not None and exchange.header is not None:
                        last.learn(bytes(exchange.header))
                        self._arm(last, last)
                if leads:
                    self._appointed(exchange)
            self._settle(exchange, leads=leads)
        except BaseException:
            self.break_off(exchange)
            raise
        return cast("T", exchange.outcome())

    def ask_alike(
        self, last: Last, inputs: Mapping[str, Any], deadline: float, *, again: bool = False
    ) -> Result | None:
        """As `ask`, for inputs like the last; None when they are not, and nothing was asked.

        `again`: the next request for the model may be by its shortcut.
        """
        begun: Begun | None = None
        try:
            with self._lock:
                self._check_usable()
                if self._user == threading.get_ident() and not self._is_led():
                    answer = self._link.ask(last, inputs, deadline)
                    if isinstance(answer, Result):
                        if again:
                            self._arm(last.model, last)
                        return answer
                    begun = self._begun(answer)
            if begun is not None:
                self.settle(begun)
        except BaseException:
            self.break_off(begun.exchange if begun is not None else None)
            raise
        if begun is not None:
            return cast("Result", begun.exchange.outcome())
        call = last.call(inputs)
        return None if call is None else self.ask(call, deadline)

    def settle(self, begun: Begun) -> None:
        """Wait until a request has its outcome; who is interrupted breaks off."""
        self._settle(begun.exchange, leads=begun.leads)

    def break_off(self, exchange: Exchange | None = None) -> None:
        """Put right what an exception may have left half done, wherever it came from.

        Args:
            exchange: the request whose answer is not wanted any more.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            if exchange is not None and not exchange.settled:
                self._link.ledger.forget(exchange)
                exchange.fail(Cancelled(f"{exchange.call.what}: the request was interrupted"))
            led = self._is_led()
            if not self._closed:
                self._used()
            elif not led:
                self._release()
            self._wake_everybody()

    def _arm(self, key: object, last: Last | LastShared) -> None:
        """Make a shortcut for requests like this one, which was answered within a moment."""
        mine = self._lock.acquire, self._lock.release, Result, Connection._go_on
        shortcut = self._link.shortcut(last, mine)
        if shortcut is not None:
            self.shortcuts[key] = shortcut

    def _go_on(
        self,
        last: Last | LastShared,
        inputs: Mapping[str, Any],
        number: int,
        deadline: float,
        done: Asked | Exception,
    ) -> Begun:
        """Go on, under the lock, with what a shortcut has begun."""
        begun = self._begun(self._used().asked(last, inputs, number, deadline, done))
        assert begun is not None  # noqa: S101 - there is an exchange
        return begun

    def _begun(self, exchange: Exchange | None) -> Begun | None:
        """Take up an exchange, under the lock, which was sent and looked for."""
        self._announce(self._used().pump(()))  # the lane may have ended
        if exchange is None:
            return None
        leads = not exchange.settled
        if leads:
            self._appointed(exchange)
        return Begun(exchange, leads)

    def _used(self) -> Link:
        """Give the link, under the lock, to whoever does anything with it but by shortcuts."""
        if self.shortcuts:
            for shortcut in self.shortcuts.values():
                shortcut.good = False
            self.shortcuts.clear()
        if self._link.torn:
            self._link.start_over()
            self._wake_everybody()
        return self._link

    def _settle(self, exchange: Exchange, *, leads: bool) -> None:
        """Wait until a request has its outcome; who `leads` reads for everybody."""
        if leads:
            self._lead(exchange, exchange.deadline)
        if not exchange.settled and not self.wait(exchange, exchange.deadline):
            self.give_up(exchange)

    def _start(self, exchange: Exchange) -> None:
        """Send a request, under the lock."""
        self._check_usable()
        if self._user != (thread := threading.get_ident()):
            self._user = _SEVERAL if self._user else thread
        if not self._link.ever_connected:
            self._open()
        settled = self._used().send(exchange)
        if settled or self._leading is not None:
            self._announce(settled)

    def wait(self, exchange: Exchange, until: float) -> bool:
        """Return true once `exchange` is settled, false at `until` (`time.monotonic()` seconds)."""
        if not exchange.settled:
            self._check_usable()
        try:
            if self._wait(
                exchange, until
            ):  # the last bell may have meant "lead": that is passed on
                with self._lock:
                    self._appoint()
        except BaseException:
            self.break_off()
            raise
        return exchange.settled

    def _wait(self, exchange: Exchange, until: float) -> bool:
        """Wait as `wait`; tell whether this thread slept."""
        slept = False
        while not exchange.settled and time.monotonic() < until:
            with self._lock:
                if exchange.settled or self._closed:
                    break
                leads = not self._is_led()
                if leads:
                    self._used()  # what it reads may be what a shortcut looks for
                    self._appointed(exchange)
                else:
                    bell = self._hang_bell(exchange)
            if leads:
                self._lead(exchange, until)
            else:
                slept = True
                self._sleep(bell, exchange, until)
        return slept

    def look(self, exchange: Exchange) -> bool:
        """Read what has come, without waiting; tell whether `exchange` is settled."""
        if not exchange.settled:
            self._check_usable()
            try:
                with self._lock:
                    if not self._closed:
                        self._announce(self._used().pump(self._link.poll(0)))
            except BaseException:
                self.break_off()
                raise
        return exchange.settled

    def forget(self, exchange: Exchange, error: SuperbrainError) -> None:
        """Settle an exchange from this side: its answer is not wanted any more."""
        self._check_usable()
        try:
            with self._lock:
                if not exchange.settled:
                    self._used().ledger.forget(exchange)
                    exchange.fail(error)
                    self._announce([exchange])
        except BaseException:
            self.break_off(exchange)
            raise

    def give_up(self, exchange: Exchange) -> None:
        """Settle an exchange whose deadline has passed."""
        self.forget(exchange, self._link.overdue(exchange))

    def release(self, regions: Iterable[Region]) -> None:
        """Let go of shared memory, here and in the workers."""
        try:
            with self._lock:
                self._used().release(regions)
        except BaseException:
            self.break_off()
            raise

    def close(self) -> None:
        """End everything under way with `ClientClosed` and release the sockets."""
        if self._pid != os.getpid():
            return
        try:
            with self._lock:
                if self._closed:
                    return
                self._closed = True
                error = ClientClosed("the client was closed while the request was under way")
                self._announce(self._used().fail_all(error))
                if self._leading is None:
                    self._release()
                # else the leader, whose exchange has just been settled, releases on its way out.
        except BaseException:
            self.break_off()
            raise

    def _open(self) -> None:
        if self._wakes_leader is None:
            self._wakes_leader = Descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._link.open(self._wakes_leader.fd)

    @property
    def _wakes_leader_fd(self) -> int:
        return self._wakes_leader.fd if self._wakes_leader is not None else -1

    def _appointed(self, exchange: Exchange) -> None:
        """Take note, under the lock, that this thread leads until `exchange` is settled."""
        self._leading, self._leader = exchange, threading.get_ident()

    def _is_led(self) -> bool:
        """Whether somebody reads for everybody.

        A thread that comes back to ask does not: an interrupt kept it from it, or from its end.
        """
        if self._leading is not None and self._leader == threading.get_ident():
            self._leading = None
        return self._leading is not None

    def _lead(self, exchange: Exchange, until: float) -> None:
        """Read for everybody until `exchange` is settled or `until` has come."""
        wakes_fd = self._wakes_leader_fd
        try:
            while not exchange.settled:
                left = until - time.monotonic()
                if left <= 0:
                    return
                ready = self._link.poll(min(left, _LONGEST_SLEEP_S))
                with self._lock:
                    if self._closed:
                        return
                    for fd, _ in ready:
                        if fd == wakes_fd:
                            os.eventfd_read(fd)
                    self._ring_for(self._used().pump(ready))
        finally:
            with self._lock:
                self._leading = None
                self._appoint()
                if self._closed:
                    self._release()

    def _sleep(self, bell: threading.Lock, exchange: Exchange, until: float) -> None:
        try:
            bell.acquire(timeout=min(max(until - time.monotonic(), 0), _LONGEST_SLEEP_S))
        finally:
            with self._lock:
                self._asleep.pop(bell, None)
                exchange.bells.remove(bell)

    def _hang_bell(self, exchange: Exchange) -> threading.Lock:
        bell = threading.Lock()
        bell.acquire()
        self._asleep[bell] = None
        exchange.bells.append(bell)
        return bell

    def _appoint(self) -> None:
        if self._leading is None and self._asleep:
            self._ring(next(iter(self._asleep)))

    def _announce(self, settled: list[Exchange]) -> None:
        """Wake whoever waits for one of these; for threads that do not lead."""
        self._ring_for(settled)
        leading = self._leading
        if leading is not None and (leading.settled or self._link.retry_at is not None):
            os.eventfd_write(self._wakes_leader_fd, 1)

    def _wake_everybody(self) -> None:
        """Let everybody look for themselves, under the lock."""
        for bell in list(self._asleep):
            self._ring(bell)
        if self._leading is not None:
            os.eventfd_write(self._wakes_leader_fd, 1)

    def _ring_for(self, settled: list[Exchange]) -> None:
        for exchange in settled:
            for bell in exchange.bells:
                self._ring(bell)

    def _ring(self, bell: threading.Lock) -> None:
        if bell in self._asleep:
            if bell.locked():  # else it was rung, and whoever did was interrupted
                bell.release()
            del self._asleep[bell]

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed", mend="Make a new Client")
        if self._pid != os.getpid():
            msg = "expected the process that sent this request, found a fork of it"
            raise ClientClosed(msg, mend="Send it anew: in a fork the client has its own socket")

    def _release(self) -> None:
        self._link.close()
        if self._wakes_leader is not None:
            self._wakes_leader.close()


class Pending(Generic[T]):
    """A request that is under way: `done` looks, `result` waits, `cancel` gives up."""

    __slots__ = ("_connection", "_exchange")

    def __init__(self, connection: Connection, call: Call[T], deadline: float) -> None:
        self._connection = connection
        self._exchange = Exchange(call, deadline)
        connection.send(self._exchange)

    @property
    def id(self) -> str:
        """The request's id, as the host's log has it."""
        return self._exchange.id

    def done(self) -> bool:
        """Tell, without waiting, whether `result` would return or raise at once."""
        return self._connection.look(self._exchange)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the answer, at most `timeout` seconds and never beyond the request's deadline.

        Raises:
            TimeoutError: `timeout` has passed; the request is still under way.
            DeadlineExceeded: its own deadline has passed; it is forgotten.
            RequestError: what the request ended with.
        """
        exchange = self._exchange
        until = exchange.deadline
        if timeout is not None:
            until = min(until, time.monotonic() + timeout)
        if not self._connection.wait(exchange, until):
            if until < exchange.deadline:
                msg = f"{exchange.call.what}: no answer within {timeout} s; it is still under way"
                raise TimeoutError(msg)
            self._connection.give_up(exchange)
        return cast("T", exchange.outcome())

    def cancel(self) -> None:
        """Give the request up: it ends with `Cancelled`, and its answer will be dropped."""
        error = Cancelled(f"{self._exchange.call.what}: the request was given up by its caller")
        self._connection.forget(self._exchange, error)
