"""A small HTTP endpoint for probes and scrapers: `/healthz`, `/readyz` and `/metrics`.

Off unless `metrics.listen` says where. It answers from what the observer has made anyway, and
nothing that comes in can hold the daemon up:

- at most `MOST_CONNECTIONS` at the same time, others wait in the kernel;
- one is taken every `PACE_S` at most, so that a flood costs a few percent of one processor;
- each has one small request, one answer and `PATIENCE_S` for both, then it is ended.

An address that cannot be had is a problem in the health report and is tried again; the rest of the
daemon does not notice.

| path | 200 | 503 |
|---|---|---|
| /healthz | the daemon looks after its parts | its last look is too old |
| /readyz | a proven process answers for every model that should be served | one does not |
| /metrics | the Prometheus text | there is none yet |
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import superbrain
from superbrain.domain.exposition import CONTENT_TYPE
from superbrain.domain.health import Problem
from superbrain.host.events import Event
from superbrain.host.logs import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.app.metrics import Metrics

log = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 16
PACE_S: Final = 0.01
PATIENCE_S: Final = 5.0
AGAIN_S: Final = 5.0
HEAD_BYTES: Final = 8192
STALE_S: Final = 30.0
_BACKLOG: Final = 32
_PLAIN: Final = "text/plain; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    content_type: str = _PLAIN


class HttpFace:
    """Listens on one address for as long as it runs.

    Args:
        host: an IP address.
        port: a port; 0 for any, as tests do.
        metrics: where the answers are.

    Attributes:
        port: where it listens now; 0 while it does not.
    """

    def __init__(self, host: str, port: int, metrics: Metrics) -> None:
        self.port = 0
        self._address = (host, port)
        self._metrics = metrics
        self._places = asyncio.Semaphore(MOST_CONNECTIONS)
        self._problem = ""

    async def run(self) -> None:
        """Listen for ever; what keeps it from that is said once and tried again."""
        while True:
            try:
                with _listening(self._address) as listener:
                    self._problem, self.port = "", listener.getsockname()[1]
                    event(log, Event.METRICS_ENDPOINT_OPENED, port=self.port)
                    await self._accept(listener)
            except OSError as error:
                self._complain(error)
            finally:
                self.port = 0
            await asyncio.sleep(AGAIN_S)

    def problems(self) -> list[Problem]:
        """Say why nobody can ask."""
        mend = "Free that address, or set another one as metrics.listen"
        return [Problem("warning", "metrics", self._problem, mend)] if self._problem else []

    def _complain(self, error: OSError) -> None:
        host, port = self._address
        found = f"metrics.listen: nobody can ask on {host} port {port}: {error.strerror}"
        if self._problem != found:
            event(log, Event.METRICS_ENDPOINT_CLOSED, logging.ERROR, found)
        self._problem = found

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            sock: socket.socket | None = None
            try:
                sock, _ = await loop.sock_accept(listener)
                await loop.connect_accepted_socket(self._exchange, sock)
            except BaseException as error:
                self._places.release()
                if sock is not None:
                    sock.close()
                if not isinstance(error, ConnectionError):  # which is gone already
                    raise
            await asyncio.sleep(PACE_S)

    def _exchange(self) -> Exchange:
        return Exchange(lambda path: answer(self._metrics, path), self._places.release)


class Exchange(asyncio.Protocol):
    """One connection: a request's head, an answer, the end."""

    def __init__(self, answer: Callable[[str], Answer], done: Callable[[], None]) -> None:
        self._answer = answer
        self._done = done
        self._head = bytearray()
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request, but not for ever."""
        self._transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(PATIENCE_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer when the head is whole, or can be none; what comes behind it is not read."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0 and len(self._head) <= HEAD_BYTES:
            return
        assert self._transport is not None  # noqa: S101 - made before anything is received
        self._transport.pause_reading()
        self._transport.write(self._response(bytes(self._head[:end]) if end >= 0 else None))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        del exc
        if self._end is not None:
            self._end.cancel()
        self._done()

    def _response(self, head: bytes | None) -> bytes:
        if head is None or len(head) > HEAD_BYTES:
            return _encoded(Answer(431, b"expected a short request\n"))
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _encoded(Answer(400, b"expected an HTTP/1 request\n"))
        method, target = words[0], words[1].decode("latin-1")
        if method not in {b"GET", b"HEAD"}:
            return _encoded(Answer(405, b"expected GET or HEAD\n"))
        return _encoded(self._answer(target.partition("?")[0]), body=method == b"GET")


def answer(metrics: Metrics, path: str) -> Answer:
    """Answer for one path."""
    if path == "/metrics":
        if not metrics.text:
            return Answer(503, b"there is no report yet\n")
        return Answer(200, metrics.text, CONTENT_TYPE)
    if path == "/healthz":
        return _said(_unhealthy(metrics))
    if path == "/readyz":
        return _said(_unhealthy(metrics) or _unready(metrics))
    return Answer(404, b"expected /healthz, /readyz or /metrics\n")


def _unhealthy(metrics: Metrics) -> list[str]:
    if metrics.health is None:
        return ["there is no report yet"]
    age_s = metrics.age_s
    return [f"the last report is {age_s:.0f} s old"] if age_s > STALE_S else []


def _unready(metrics: Metrics) -> list[str]:
    health = metrics.health
    if health is None or health.ready:
        return []
    critical = [one for one in health.problems if one.severity == "critical"]
    found = [f"{one.subject}: {one.message}" for one in critical]
    return found or [f"{one.name} is {one.state}" for one in health.models if one.state != "ready"]


def _said(why_not: list[str]) -> Answer:
    lines = "".join(f"{' '.join(why.split())}\n" for why in why_not)
    return Answer(503 if why_not else 200, lines.encode() or b"ok\n")


def _encoded(answer: Answer, *, body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
        f"Server: superbrain/{superbrain.__version__}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"{'Allow: GET, HEAD' + chr(13) + chr(10) if answer.status == 405 else ''}"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if body else b"")


def _listening(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
