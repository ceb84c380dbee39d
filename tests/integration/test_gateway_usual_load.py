"""Usual requests under load, in real processes: workers die or are swapped, clients come and go.

Each test runs with either twin of the gateway's turns.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from superbrain.wire.messages import InferRequest, TensorHeader
from tests.support.gateway_ends import GREETING, message, ready
from tests.support.gateway_loop import ClientEnd, behind_verb
from tests.support.processes import PATIENCE_S, Stage, WorkerChild, until
from tests.support.twins import twin

__all__ = ["twin"]
pytestmark = pytest.mark.integration
CALLERS, AT_ONCE = 8, 4
REQUESTS, PASSERS_BY = 8_000, 250


@pytest.fixture
def stage(twin: str, tmp_path: Path) -> Iterator[Stage]:
    """A gateway of its own for each test and twin."""
    with Stage(tmp_path) as stage:
        yield stage


def infer(name: str, value: float) -> bytes:
    """Give the bytes of a request."""
    request = InferRequest("adder", [TensorHeader("x", "FP32", [1])], name)
    tensor = np.array([value], np.float32).tobytes()
    return message(b"", b"SB1I", msgspec.json.encode(request), tensor)


def called(stage: Stage) -> ClientEnd:
    """A client that has shaken hands, and reads until something comes."""
    client = ClientEnd(stage.endpoint.removeprefix("ipc://"))
    client.socket.setblocking(True)
    client.socket.settimeout(PATIENCE_S)
    client.socket.sendall(GREETING + ready(b"DEALER"))
    came = b""
    while len(came) < len(GREETING) + 2 or len(came) < len(GREETING) + 2 + came[65]:
        came += client.socket.recv(1 << 16)
    client.taken = came[len(GREETING) + 2 + came[65] :]
    return client


class Caller(threading.Thread):
    """Asks `AT_ONCE` at a time, and wants an answer of its own to each, and one only."""

    def __init__(self, stage: Stage, name: str, most: int = 1 << 30) -> None:
        super().__init__(daemon=True)
        self._client = called(stage)
        self._name, self._most = name, most
        self.stop = threading.Event()
        self.sent = self.answered = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set() and self.sent < self._most:
            numbers = range(self.sent, self.sent + AT_ONCE)
            self._client.socket.sendall(
                b"".join(infer(f"{self._name}-{n}", float(n)) for n in numbers)
            )
            self.sent += AT_ONCE
            missing = {f"{self._name}-{n}": n for n in numbers}
            while missing:
                self._take(missing)

    def _take(self, missing: dict[str, int]) -> None:
        self._client.taken += self._client.socket.recv(1 << 16)
        self._client.socket.setblocking(False)
        for frames in self._client.messages():
            header = msgspec.json.decode(behind_verb(frames))
            number = missing.pop(header["id"], None)
            y = frames[3:4]  # of an error there is none
            if number is None or y != [np.array([number + 1], np.float32).tobytes()]:
                self.wrong.append(str(header))
            self.answered += 1
        self._client.socket.settimeout(PATIENCE_S)

    def end(self) -> None:
        """Stop; all has been answered well, and nothing comes behind it."""
        self.stop.set()
        self.join(2 * PATIENCE_S)
        assert not self.is_alive()
        assert self.wrong == []
        assert self.answered == self.sent > 0
        self._client.socket.setblocking(False)
        assert self._client.messages() == []
        self._client.close()


def calling(stage: Stage, most: int = 1 << 30) -> list[Caller]:
    """Let all callers begin."""
    callers = [Caller(stage, f"c{number}", most) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    until(lambda: all(caller.answered for caller in callers), "answers for all")
    return callers


def more(callers: list[Caller]) -> None:
    """Wait until each has had another answer."""
    before = [caller.answered for caller in callers]
    until(
        lambda: all(caller.answered > count for caller, count in zip(callers, before, strict=True)),
        "more answers for all",
    )


def succeeded(stage: Stage, version: int) -> WorkerChild:
    """The worker of the next version, ready to be routed to."""
    return stage.worker(f"version={version}").bring_up()


def test_deaths_and_swaps_lose_nothing_and_answer_nothing_twice(stage: Stage) -> None:
    serving = stage.serving("version=1")
    callers = calling(stage)
    for version, how in enumerate(["kill", "swap", "kill", "switch", "kill"], start=2):
        heir = succeeded(stage, version)
        more(callers)
        if how == "kill":
            serving.kill()
        elif how == "swap":
            serving.stand_by()
        stage.gateway.route("adder", str(version), [heir])
        more(callers)
        serving = heir
    for caller in callers:
        caller.end()
    (traffic,) = stage.gateway.figures().models
    sent = sum(caller.sent for caller in callers)
    assert (traffic.requests, traffic.answered, traffic.errors) == (sent, sent, 0)
    assert (traffic.outstanding, traffic.waiting) == (0, 0)
    assert sum(traffic.latency.counts) == sent
    assert traffic.redispatched > 0
    assert stage.gateway.unasked == []


def test_who_comes_and_goes_never_gets_what_is_somebody_elses(stage: Stage) -> None:
    stage.serving()
    callers = calling(stage, REQUESTS // CALLERS)
    process = psutil.Process(stage.gateway.process.pid)
    draw = random.Random(7)
    descriptors = process.num_fds()
    for number in range(PASSERS_BY):
        if number == PASSERS_BY // 5:
            resident = process.memory_info().rss
        passer_by = called(stage)
        count = draw.randrange(4)
        passer_by.socket.sendall(b"".join(infer(f"p{number}-{n}", n) for n in range(count)))
        if count and draw.random() < 0.5:
            passer_by.taken += passer_by.socket.recv(1 << 16)
            passer_by.socket.setblocking(False)
            assert all(id.startswith(f"p{number}-") for id in passer_by.ids())
        passer_by.close()
        if number % 100 == 0:
            stage.gateway.figures()
    for caller in callers:
        caller.join(6 * PATIENCE_S)
        caller.end()
    until(lambda: not stage.gateway.figures().models[0].outstanding, "all answered")
    assert sum(caller.answered for caller in callers) == REQUESTS
    assert process.memory_info().rss - resident < 8 << 20
    until(lambda: process.num_fds() == descriptors - CALLERS, "all to be let go")


def test_pings_are_answered_and_signals_left_to_the_daemon_under_load(stage: Stage) -> None:
    stage.serving()
    callers = calling(stage)
    for _ in range(5):
        began = time.monotonic()
        assert stage.gateway.figures().models[0].answered > 0
        assert time.monotonic() - began < PATIENCE_S / 4
        stage.gateway.process.send_signal(signal.SIGTERM)
        more(callers)
    for caller in callers:
        caller.end()


def test_what_waits_expires_under_load(stage: Stage) -> None:
    stage.serving()
    stage.gateway.route("other", "1", [])
    callers = calling(stage)
    with stage.client() as client:
        for number in range(5):
            client.send("other", [1], id=str(number), timeout_ms=50)
            began = time.monotonic()
            answer = client.receive()
            assert (answer.id, answer.code) == (str(number), "DEADLINE_EXCEEDED")
            assert time.monotonic() - began < PATIENCE_S / 4
            more(callers)
    for caller in callers:
        caller.end()
