"""Who waits for what: every request without an answer, by id. Pure bookkeeping, no sockets.

Rules it keeps:

- A request stays here until it has its one outcome: an answer, an error, or its deadline.
- What is here and not sent, or sent over a connection that was lost, is waiting to be sent. An
  inference has no side effects, so asking again is safe.
- An answer to an id that is not here (answered already, given up, another process's) is dropped.

>>> ledger = Ledger("a")
>>> ledger.add(exchange)                    # doctest: +SKIP
>>> ledger.next_to_send(now) is exchange    # doctest: +SKIP
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
from collections.abc import Iterator
from typing import Any

import msgspec

from superbrain.client.calls import Call, Frame
from superbrain.wire.errors import Internal, SuperbrainError
from superbrain.wire.messages import (
    ERROR,
    MAX_TIMEOUT_MS,
    PROTOCOL,
    RESULT,
    UNREADABLE,
    decode_error,
)

_log = logging.getLogger(__name__)
_RESULT = PROTOCOL + RESULT
_ERROR = PROTOCOL + ERROR


class _ReplyId(msgspec.Struct):
    id: str = ""


_reply_id = msgspec.json.Decoder(_ReplyId).decode


class Exchange:
    """One request and, once `settled`, its outcome.

    Attributes:
        call: what is asked.
        deadline: `time.monotonic()` seconds when the answer is no longer wanted; may be inf.
        name: of the ledger it is in, and its `number` there; both together are its `id`.
        suspect: a worker died while it executed this.
        bells: locks of the threads that sleep until this is settled.
    """

    __slots__ = (
        "_error",
        "_header",
        "_tensors",
        "bells",
        "call",
        "deadline",
        "name",
        "number",
        "settled",
        "suspect",
    )

    def __init__(self, call: Call[Any], deadline: float) -> None:
        self.call = call
        self.deadline = deadline
        self.name = ""
        self.number = 0
        self.settled = False
        self.suspect = False
        self.bells: list[threading.Lock] = []
        self._header: bytes | memoryview = b""
        self._tensors: list[memoryview] = []
        self._error: SuperbrainError | None = None

    @property
    def id(self) -> str:
        """The request's id, as the host's log has it."""
        return f"{self.name}-{self.number}" if self.number else ""

    @property
    def header(self) -> Frame | None:
        """The header of its answer; None before, and where it ended with an error."""
        return self._header if self.settled and self._error is None else None

    def frames(self, now: float) -> list[Frame]:
        """Write the request as of `now`: the time that is left is part of it."""
        left = self.deadline - now
        timeout_ms = 0
        if left < math.inf:
            timeout_ms = min(max(1, round(left * 1000)), MAX_TIMEOUT_MS)
        header = self.call.header(self.id, timeout_ms, self.suspect)
        return [PROTOCOL + self.call.verb, header, *self.call.tensors]

    def answer(self, header: Frame, tensors: list[memoryview]) -> None:
        """Settle with an answer."""
        self._header, self._tensors, self.settled = header, tensors, True

    def refuse(self, header: Frame) -> None:
        """Settle with the header of an error reply."""
        try:
            self.fail(decode_error(header))
        except UNREADABLE as reason:
            msg = f"{self.call.what}: expected an error reply, found one that cannot be read"
            self.fail(Internal(f"{msg}: {reason}"))

    def fail(self, error: SuperbrainError) -> None:
        """Settle with an error."""
        self._error, self.settled = error, True

    def outcome(self) -> Any:  # noqa: ANN401 - the call knows the type
        """Give what the answer says.

        Raises:
            SuperbrainError: the error it was settled with.
        """
        if self._error is not None:
            raise self._error
        return self.call.read(self._header, self._tensors, self.id)


class Ledger:
    """All exchanges of one connection that have no outcome yet."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count(1)
        self._open: dict[str, Exchange] = {}
        self._unsent: dict[str, Exchange] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def unsent(self) -> int:
        """How many wait to be sent."""
        return len(self._unsent)

    def enter(self, exchange: Exchange) -> None:
        """Give an exchange its id; whoever sends it without `add` keeps it."""
        exchange.name, exchange.number = self.next_id()

    def next_id(self) -> tuple[str, int]:
        """Give an id that no exchange has: the ledger's name, and a number."""
        return self._name, next(self._numbers)

    def ids(self) -> tuple[str, Iterator[int]]:
        """Give what ids are made of: the ledger's name, and whence the numbers come."""
        return self._name, self._numbers

    def add(self, exchange: Exchange) -> None:
        """Take an exchange in and line it up for sending."""
        if not exchange.number:
            self.enter(exchange)
        request_id = exchange.id
        self._open[request_id] = self._unsent[request_id] = exchange

    def next_to_send(self) -> Exchange | None:
        """Take the oldest exchange that is not sent; the caller sends it or calls `forget`."""
        if not self._unsent:
            return None
        return self._unsent.pop(next(iter(self._unsent)))

    def lost(self) -> None:
        """Note that the connection broke: everything without an answer is to be sent again."""
        self._open = {name: one for name, one in self._open.items() if not one.settled}
        self._unsent = dict(self._open)

    def forget(self, exchange: Exchange) -> None:
        """Drop an exchange; an answer that still comes will find nobody."""
        self._open.pop(exchange.id, None)
        self._unsent.pop(exchange.id, None)

    def settle(self, frames: list[Any]) -> Exchange | None:
        """Give a reply to the exchange it answers; None when there is none.

        Args:
            frames: verb and header as bytes, then the tensors as memoryviews.
        """
        kind = frames[0]
        if len(frames) < 2 or kind not in {_RESULT, _ERROR}:
            _log.warning("ignored a reply that is not of this protocol: %r", kind[:16])
            return None
        header = frames[1]
        try:
            request_id = _reply_id(header).id
            error = decode_error(header) if kind == _ERROR else None
        except UNREADABLE as reason:
            _log.warning("ignored a reply whose header cannot be read: %s", reason)
            return None
        exchange = self._open.get(request_id)
        if exchange is None:
            _log.debug("ignored a reply to %r, for which nobody waits: %s", request_id, error)
            return None
        if error is None:
            exchange.answer(header, frames[2:])
        else:
            exchange.fail(error)
        self.forget(exchange)
        return exchange

    def fail_all(self, error: SuperbrainError) -> list[Exchange]:
        """Settle everything with `error`; give what was settled."""
        ended = list(self._open.values())
        for exchange in ended:
            exchange.fail(error)
        self._open.clear()
        self._unsent.clear()
        return ended
