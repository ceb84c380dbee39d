"""What the HTTP endpoint answers, without a socket; tests/integration/test_metrics.py has those."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from superbrain.app.http_face import HEAD_BYTES, STALE_S, Answer, Exchange, answer
from superbrain.app.metrics import Metrics
from tests.support.reports import busy_health, sample_health


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.paused = False

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.paused = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


def exchanged(*pieces: bytes) -> tuple[Transport, list[str]]:
    """What comes back for a request that arrives in pieces, and which paths were asked for."""
    paths: list[str] = []
    transport: Any = Transport()

    def asked(path: str) -> Answer:
        paths.append(path)
        return Answer(200, b"hello\n")

    async def scene() -> None:
        done: list[bool] = []
        exchange = Exchange(asked, lambda: done.append(True))
        exchange.connection_made(transport)
        for piece in pieces:
            if not transport.paused:
                exchange.data_received(piece)
        exchange.connection_lost(None)
        assert done == [True]

    asyncio.run(scene())
    return transport, paths


def status(transport: Transport) -> int:
    return int(transport.written.split()[1])


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(None)


# --- the protocol ---------------------------------------------------------------------------------


def test_a_request_is_answered_and_the_connection_ends() -> None:
    transport, paths = exchanged(b"GET /readyz?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert (paths, body, transport.closed) == (["/readyz"], b"hello\n", True)
    assert b"\r\nContent-Length: 6\r\n" in head
    assert b"\r\nConnection: close" in head


def test_a_request_may_come_byte_by_byte() -> None:
    request = b"GET /metrics HTTP/1.0\r\n\r\n"
    transport, paths = exchanged(*(request[n : n + 1] for n in range(len(request))))
    assert (status(transport), paths) == (200, ["/metrics"])


def test_head_has_the_length_and_no_body() -> None:
    transport, _ = exchanged(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert transport.written.endswith(b"\r\n\r\n")
    assert b"Content-Length: 6" in transport.written


def test_half_a_request_gets_no_answer() -> None:
    transport, paths = exchanged(b"GET /metrics HTTP/1.1\r\nHost")
    assert (transport.written, paths) == (b"", [])


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics SPDY/3\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /" + b"a" * HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_such_request_is_refused_unasked(request_bytes: bytes, expected: int) -> None:
    transport, paths = exchanged(request_bytes, b"more", b"\r\n\r\n")
    assert (status(transport), paths, transport.closed) == (expected, [], True)


# --- the answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_before_the_first_report_nothing_is_well(metrics: Metrics, path: str) -> None:
    assert answer(metrics, path).status == 503


@pytest.mark.parametrize(
    ("path", "body"), [("/healthz", b"ok\n"), ("/readyz", b"ok\n"), ("/metrics", b"# HELP ")]
)
def test_a_host_that_is_well_says_so(metrics: Metrics, path: str, body: bytes) -> None:
    metrics.publish(sample_health())
    found = answer(metrics, path)
    assert found.status == 200
    assert found.body.startswith(body)
    assert found.content_type.startswith("text/plain")


def test_a_host_that_does_not_answer_for_a_model_is_alive_and_not_ready(metrics: Metrics) -> None:
    metrics.publish(busy_health())
    assert answer(metrics, "/healthz").status == 200
    found = answer(metrics, "/readyz")
    assert found.status == 503
    assert found.body.decode().startswith("model speech-detection: its worker ended 5 times")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_an_old_report_is_no_sign_of_life(
    metrics: Metrics, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics.publish(sample_health())
    monkeypatch.setattr(Metrics, "age_s", STALE_S + 1)
    assert answer(metrics, path) == Answer(503, b"the last report is 31 s old\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../metrics", "/healthz ", "*"])
def test_no_other_path_is_there(metrics: Metrics, path: str) -> None:
    assert answer(metrics, path).status == 404
