"""Nothing is kept of what has been passed on, nor of clients and lanes that have gone.

The collector is off, as in the gateway: what refers to itself in a circle would stay.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway_loop import ClientEnd, GatewayLoop, WorkerEnd, asked, request
from tests.support.twins import twin

__all__ = ["twin"]
TIMES = 400


@pytest.fixture
def loop(twin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayLoop]:
    loop = GatewayLoop(tmp_path, monkeypatch)
    gc.collect()
    gc.disable()
    yield loop
    gc.enable()
    loop.close()


@pytest.fixture
def worker(loop: GatewayLoop) -> WorkerEnd:
    worker = loop.worker(1000)
    loop.route("m", [worker])
    return worker


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def assert_keeps_nothing(loop: GatewayLoop, once: Callable[[], object]) -> None:
    """Do it often: no objects are left without the collector, nor memory with it.

    Memory alone would say too much without it: of some objects Python keeps many for later.
    """

    def often() -> None:
        for _ in range(TIMES):
            once()
            loop.front.hang_up_on_the_silent(0)  # as at a ping: nobody is new any more

    often()  # lists of the last figures fill up
    gc.collect()
    descriptors, objects = open_descriptors(), len(gc.get_objects())
    blocks = sys.getallocatedblocks()
    often()
    assert len(gc.get_objects()) - objects < TIMES / 2
    assert open_descriptors() == descriptors
    gc.collect()
    assert sys.getallocatedblocks() - blocks < TIMES / 2


def ask(loop: GatewayLoop, worker: WorkerEnd, client: ClientEnd, count: int = 8) -> None:
    client.send(b"".join(asked(str(number), b"tensor") for number in range(count)))
    loop.turns()
    assert worker.answer_all() == count
    worker.frames.clear()
    loop.turns()
    assert len(client.messages()) == count


def test_requests_and_answers_keep_nothing(loop: GatewayLoop, worker: WorkerEnd) -> None:
    client = loop.client()
    loop.learn(client, worker, request())
    assert_keeps_nothing(loop, lambda: ask(loop, worker, client))


def test_clients_that_come_ask_and_go_keep_nothing(loop: GatewayLoop, worker: WorkerEnd) -> None:
    def once() -> None:
        client = loop.client()
        ask(loop, worker, client)
        client.close()
        loop._clients.remove(client)
        loop.turns()

    assert_keeps_nothing(loop, once)
    assert loop.front.usual == {}


def test_clients_that_go_before_their_answers_come_keep_nothing(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    def once() -> None:
        client = loop.client()
        client.send(asked("a") + asked("b"))
        loop.turns()
        client.close()
        loop._clients.remove(client)
        loop.turns()
        assert worker.answer_all() == 2
        worker.frames.clear()
        loop.turns()

    assert_keeps_nothing(loop, once)
    assert loop.front.usual == {}


def test_clients_that_go_while_their_requests_wait_keep_nothing(loop: GatewayLoop) -> None:
    loop.route("m", [])

    def once() -> None:
        client = loop.client()
        client.send(asked("a") + asked("b"))
        loop.turns()
        client.close()
        loop._clients.remove(client)
        loop.turns()

    assert_keeps_nothing(loop, once)
    assert loop.figures().models[0].waiting == 0


def test_requests_of_ever_other_kinds_keep_a_bounded_number_of_ways(
    loop: GatewayLoop, worker: WorkerEnd
) -> None:
    client = loop.client()
    loop.learn(client, worker, request())
    for number in range(600):
        client.send(asked("a", more=b'"parameters":{"timeout_ms":%d},' % (1000 + number)))
        loop.turns()
        assert len(loop.traffic.ways) <= 256
        worker.answer_all()
        loop.turns()
    assert client.ids() == ["a"] * 600


def test_headers_that_are_long_are_not_kept(loop: GatewayLoop, worker: WorkerEnd) -> None:
    client = loop.client()
    loop.learn(client, worker, request())
    known = len(loop.traffic.ways)
    for size in (4000, 5000):
        client.send(asked("a", more=b'"more":"%b",' % (b"x" * size)))
        loop.turns()
    assert len(loop.traffic.ways) <= known + 1
