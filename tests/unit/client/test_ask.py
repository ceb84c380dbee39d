"""A request like the last, in one step: when it goes so, and that it ends as any other does."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.client import calls, link
from superbrain.client.connection import ClientClosed, Connection
from superbrain.client.ledger import Exchange
from superbrain.client.link import Link
from superbrain.client.region import REGION_BIT
from superbrain.client.result import Result, form_without_id
from superbrain.transport import compiled
from superbrain.transport.brief_wait import BriefWait
from superbrain.wire import lane
from superbrain.wire.errors import NotFound
from superbrain.wire.messages import (
    InferResponse,
    SharedMemory,
    TensorHeader,
)
from tests.support.lane_ends import ClientEnd, WorkerEnd, X, connected, last_of
from tests.support.lone_client import (
    PATIENCE_S,
    Answering,
    Gateway,
    bring_on_lane,
    settle,
    upcoming,
    wait_of,
)
from tests.support.twins import MISSING

LONG_NS = 10_000_000_000  # all that happens in a test is brief


@pytest.fixture
def _compiled() -> None:
    if compiled.loop() is None:
        pytest.skip(MISSING)
    form_without_id.cache_clear()  # what other tests have seen is not known


@pytest.fixture
def client(worker: WorkerEnd, _compiled: None) -> Iterator[ClientEnd]:
    client = ClientEnd()
    connected(client, worker)
    yield client
    client.lanes.close()


def sent(client: ClientEnd) -> Exchange:
    """Ask, where the answer does not come as a result at once."""
    exchange = client.ask_alike()
    assert isinstance(exchange, Exchange)
    return exchange


def answered(client: ClientEnd, worker: WorkerEnd, value: float = 0, version: str = "1") -> Result:
    """Ask until it goes in one step; the worker answers before each."""
    for _ in range(5):
        worker.reply(client.next_number, value, version=version)
        answer = client.ask_alike()
        if isinstance(answer, Result):
            return answer
        assert isinstance(answer, Exchange)
        assert answer.settled
        assert answer.outcome()["y"][0] == value
    raise AssertionError("expected an answer in one step")


def value_of(result: Result) -> float:
    return float(result["y"][0])


# --- lanes ---------------------------------------------------------------------------------------


def test_an_answer_in_a_new_header_is_learned_and_the_next_comes_in_one_step(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    assert value_of(answered(client, worker, 7)) == 7
    for value in range(5):
        worker.reply(client.next_number, value)
        answer = client.ask_alike()
        assert isinstance(answer, Result)
        assert value_of(answer) == value
    answer = answered(client, worker, 8, version="2")
    assert (answer.model_name, answer.model_version, value_of(answer)) == ("m", "2", 8)
    assert answered(client, worker, 9).model_version == "1"
    assert len(client.last.answers) == 2


def test_of_headers_that_change_again_and_again_only_some_are_kept(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    for version in map(str, range(40)):
        assert answered(client, worker, 1, version=version).model_version == version
        assert 1 <= len(client.last.answers) <= 16


def test_an_answer_in_shared_memory_is_not_learned(client: ClientEnd) -> None:
    y = TensorHeader("y", "FP32", [1], SharedMemory(1, 4))
    for _ in range(3):
        client.last.learn(msgspec.json.encode(InferResponse("m", "1", [y])))
    assert client.last.answers == {}


def test_a_result_bears_the_id_of_its_request(client: ClientEnd, worker: WorkerEnd) -> None:
    answered(client, worker)
    worker.requests()
    number = client.next_number
    worker.reply(number)
    answer = client.ask_alike()
    assert isinstance(answer, Result)
    (request,) = worker.requests()
    assert request.request_id == number
    assert answer.id == f"a-{number}"
    assert msgspec.json.decode(request.header)["id"] == "a"


def test_the_request_is_as_any_other_of_its_inputs(client: ClientEnd, worker: WorkerEnd) -> None:
    deadline = time.monotonic() + 30
    client.ask_alike({"x": np.array([5], np.float32)}, deadline=deadline)
    (short,) = worker.requests()
    other = Exchange(calls.infer("m", {"x": np.array([5], np.float32)}), deadline)
    client.ledger.enter(other)
    client.lanes.take(other)
    (long,) = worker.requests()
    assert short.request_id == other.number - 1
    for name in ("kind", "priority", "deadline_ns", "header"):
        assert getattr(short, name) == getattr(long, name)
    assert short.deadline_ns == int(deadline * 1e9)
    assert [bytes(one) for one in short.tensors] == [bytes(one) for one in long.tensors]


def test_two_results_share_no_memory(client: ClientEnd, worker: WorkerEnd) -> None:
    first = answered(client, worker, 1)
    second = answered(client, worker, 2)
    assert not np.shares_memory(first["y"], second["y"])
    first["y"][:] = 9
    assert value_of(second) == 2


def test_an_answer_that_comes_later_settles_by_the_usual_road(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    exchange = sent(client)
    assert not exchange.settled
    assert exchange.id == f"a-{exchange.number}"
    assert client.lane.outstanding == {exchange.number: exchange}
    worker.reply(exchange.number, 3)
    assert client.read() == [exchange]
    assert value_of(exchange.outcome()) == 3
    assert exchange.outcome().id == exchange.id
    assert client.lane.idle
    assert value_of(answered(client, worker, 4)) == 4


def test_a_look_in_vain_makes_the_next_wait_sleep(client: ClientEnd, worker: WorkerEnd) -> None:
    client.wait._last_ns = 0
    answered(client, worker)
    assert client.wait.brief
    sent(client)
    assert not client.wait.brief


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_error_is_what_it_is(client: ClientEnd, worker: WorkerEnd, version: str) -> None:
    answered(client, worker, version=version)
    worker.reply(client.next_number, error=NotFound("gone"))
    exchange = sent(client)
    assert exchange.settled
    with pytest.raises(NotFound, match="gone"):
        exchange.outcome()
    assert client.lane.idle
    assert value_of(answered(client, worker, 5)) == 5


def test_what_was_given_up_is_waited_for_and_its_answer_dropped(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    exchange = sent(client)
    exchange.fail(NotFound("given up"))
    assert client.ask_alike() is None
    worker.reply(exchange.number, 2)
    assert client.read() == []
    with pytest.raises(NotFound, match="given up"):
        exchange.outcome()
    assert value_of(answered(client, worker, 3)) == 3


def test_answers_that_are_late_or_come_twice_are_dropped(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    answered(client, worker, 1)
    given_up = sent(client)
    given_up.fail(NotFound("given up"))
    client.lane.outstanding.clear()
    worker.reply(given_up.number, 2)  # late
    number = client.next_number
    worker.reply(number, 3)
    worker.reply(number, 4)  # twice
    exchange = sent(client)
    assert exchange.number == number
    assert value_of(exchange.outcome()) == 3
    with pytest.raises(NotFound):
        given_up.outcome()

    worker.reply(number, 4)  # once more, and nothing else
    exchange = sent(client)
    assert not exchange.settled
    worker.reply(exchange.number, 5)
    assert client.read() == [exchange]
    assert value_of(exchange.outcome()) == 5


@pytest.mark.parametrize(
    "before",
    [(lane.ERROR, REGION_BIT | 99), (lane.GOODBYE, 0), (lane.REGION, REGION_BIT | 99)],
    ids=["refused region", "goodbye", "region"],
)
def test_what_comes_before_the_answer_is_not_taken_for_it(
    client: ClientEnd, worker: WorkerEnd, before: tuple[int, int]
) -> None:
    answered(client, worker)
    number = client.next_number
    worker.open_socket.send_frame(before[0], b"", [], before[1])
    worker.reply(number, 6)
    assert value_of(sent(client).outcome()) == 6


def test_after_a_goodbye_nothing_is_asked(client: ClientEnd, worker: WorkerEnd) -> None:
    number = client.next_number
    worker.reply(number)
    worker.open_socket.send_frame(lane.GOODBYE, b"", [], 0)
    assert sent(client).settled
    worker.requests()
    assert client.ask_alike() is None
    assert worker.requests() == []


# --- when it does not go so ----------------------------------------------------------------------


def is_not_asked(client: ClientEnd, *workers: WorkerEnd) -> None:
    for one in workers:
        one.requests()
    outstanding = {fd: dict(found.outstanding) for fd, (_, found) in client.lanes._by_fd.items()}
    assert client.ask_alike() is None
    assert [one.requests() for one in workers] == [[] for _ in workers]
    for fd, (_, found) in client.lanes._by_fd.items():
        assert found.outstanding == outstanding[fd]


def test_of_two_lanes_the_one_with_less_to_do_has_to_be_found(
    worker: WorkerEnd, tmp_path: Path
) -> None:
    client, other = ClientEnd(), WorkerEnd(tmp_path / "other")
    client.ask()
    client.ask()
    client.resolve(worker.path, other.path)
    worker.greet()
    other.greet()
    client.read()
    is_not_asked(client, worker, other)
    client.lanes.close()
    other.close()


def test_who_waits_goes_first(client: ClientEnd, worker: WorkerEnd) -> None:
    waiting = Exchange(calls.infer("m", X), math.inf)
    client.ledger.enter(waiting)
    client.lanes._models["m"].wait(waiting)
    is_not_asked(client, worker)


def test_what_is_outstanding_is_read_first(client: ClientEnd, worker: WorkerEnd) -> None:
    exchange, _ = client.ask()
    is_not_asked(client, worker)
    worker.reply(exchange.number)
    client.read()
    assert client.ask_alike() is not None


def test_a_worker_of_no_window_is_not_asked(worker: WorkerEnd) -> None:
    client = ClientEnd()
    connected(client, worker, window=0)
    is_not_asked(client, worker)
    client.lanes.close()


def test_nobody_is_asked_before_the_greeting(worker: WorkerEnd) -> None:
    client = ClientEnd()
    assert client.ask_alike() is None
    client.ask()
    assert client.ask_alike() is None
    client.ask()
    client.resolve(worker.path)
    assert client.ask_alike() is None
    worker.greet()
    is_not_asked(client, worker)
    client.lanes.close()


def test_while_more_lanes_are_to_be_asked_for_it_goes_the_long_way(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    client.lanes._models["m"].asks_at = time.monotonic() + 1
    is_not_asked(client, worker)


def test_inputs_that_are_not_alike_go_the_long_way(client: ClientEnd, worker: WorkerEnd) -> None:
    assert client.ask_alike({"x": np.ones(2, np.float32)}) is None
    assert client.lane.idle
    assert worker.requests() == []


def test_without_the_compiled_loop_it_goes_the_long_way(
    worker: WorkerEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "loop", lambda: None)
    client = ClientEnd()
    connected(client, worker)
    is_not_asked(client, worker)
    client.lanes.close()


# --- the end of a lane ---------------------------------------------------------------------------


@pytest.mark.parametrize("guilty", [False, True])
def test_a_lane_that_dies_meanwhile_leaves_its_request_to_the_gateway(
    client: ClientEnd, worker: WorkerEnd, guilty: bool
) -> None:
    number = client.next_number
    if guilty:
        worker.page.begin(5, number)
    worker.hang_up()
    exchange = sent(client)
    assert exchange.number == number
    assert not exchange.settled
    assert client.lanes.returned == [exchange]
    assert exchange.suspect == guilty
    assert client.lanes._by_fd == {}
    assert client.ask_alike() is None


def test_a_worker_that_was_gone_before_leaves_it_to_the_gateway_too(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    worker.end(goodbye=False)
    exchange = sent(client)
    client.read()
    assert client.lanes.returned == [exchange]


def test_garbage_leaves_it_to_the_gateway(client: ClientEnd, worker: WorkerEnd) -> None:
    worker.open_socket.send([b"\xff" * 100])
    exchange = sent(client)
    assert client.lanes.returned == [exchange]
    assert client.lanes._by_fd == {}


@pytest.mark.parametrize("kind", [lane.REQUEST, lane.HELLO])
def test_a_frame_that_no_worker_sends_leaves_it_to_the_gateway(
    client: ClientEnd, worker: WorkerEnd, kind: int
) -> None:
    worker.open_socket.send_frame(kind, b"{", [], 1)
    exchange = sent(client)
    assert client.lanes.returned == [exchange]
    assert client.lanes._by_fd == {}


def test_what_the_worker_does_not_take_at_once_is_sent_by_and_by(
    client: ClientEnd, worker: WorkerEnd
) -> None:
    inputs = {"x": np.arange(8_000_000, dtype=np.float32)}
    client.last = last_of(inputs)
    exchange = client.ask_alike(inputs)
    assert isinstance(exchange, Exchange)
    assert client.lane.socket.pending_bytes
    assert client.ask_alike(inputs) is None
    requests: list[lane.LaneFrame] = []
    while not requests:
        client.read(0)
        requests = worker.requests()
    assert bytes(requests[0].tensors[0]) == inputs["x"].tobytes()
    worker.reply(exchange.number, 8)
    assert client.read() == [exchange]
    assert value_of(exchange.outcome()) == 8


# --- link and connection -------------------------------------------------------------------------


@pytest.fixture
def connection(
    gateway: Gateway, worker: WorkerEnd, _compiled: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connection]:
    """One with a lane, whose last wait was brief."""
    monkeypatch.setattr(link, "_MOMENT_NS", LONG_NS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    connection = Connection(gateway.endpoint)
    bring_on_lane(connection, gateway, worker)
    assert wait_of(connection).brief
    yield connection
    connection.close()


def ask(connection: Connection, last: Any = None) -> Result | None:  # noqa: ANN401 - a Last
    return connection.ask_alike(last or last_of(X), X, time.monotonic() + PATIENCE_S)


def test_who_is_alone_is_answered_in_one_step(connection: Connection, worker: WorkerEnd) -> None:
    last = last_of(X)
    before = dict(connection._asleep)
    for value in range(5):
        worker.reply(upcoming(connection), value)
        result = ask(connection, last)
        assert result is not None
        assert value_of(result) == value
        (request,) = worker.requests()
        assert result.id.endswith(f"-{request.request_id}")
    assert connection._leading is None
    assert connection._asleep == before
    assert len(last.answers) == 1


def test_where_waits_are_not_brief_the_link_asks_nobody(
    connection: Connection, worker: WorkerEnd
) -> None:
    wait_of(connection)._last_ns = LONG_NS
    assert connection._link.ask(last_of(X), X, math.inf) is None
    assert worker.requests() == []
    wait_of(connection)._last_ns = 0
    worker.reply(upcoming(connection))
    assert connection._link.ask(last_of(X), X, math.inf) is not None


def test_a_link_that_was_not_opened_asks_nobody() -> None:
    assert Link("ipc:///nowhere", lanes=True).ask(last_of(X), X, math.inf) is None


@pytest.fixture
def answering(worker: WorkerEnd, gateway: Gateway, connection: Connection) -> Iterator[None]:
    thread = Answering(worker, gateway)
    thread.start()
    yield
    thread.stop()


@pytest.mark.usefixtures("answering")
def test_an_answer_behind_the_moment_is_waited_for(connection: Connection) -> None:
    last = last_of(X)
    epoll = connection._link._epoll
    assert epoll is not None
    connection._link._wait = BriefWait(epoll, 1)  # so nothing comes within it
    for value in range(5):
        connection._link._wait._last_ns = 0
        inputs = {"x": np.array([value], np.float32)}
        result = connection.ask_alike(last, inputs, time.monotonic() + PATIENCE_S)
        assert result is not None
        assert value_of(result) == value
        assert connection._leading is None


@pytest.mark.usefixtures("answering")
def test_from_two_threads_it_goes_the_usual_way(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, asked = last_of(X), []
    short_way = Link.ask

    def seen(self: Link, *args: Any) -> object:  # noqa: ANN401 - passed on
        asked.append(args)
        return short_way(self, *args)

    monkeypatch.setattr(Link, "ask", seen)
    results: list[Result | None] = [ask(connection, last)]
    assert len(asked) == 1
    thread = threading.Thread(target=lambda: results.append(ask(connection, last)))
    thread.start()
    thread.join()
    results += [ask(connection, last), ask(connection, last)]
    assert len(asked) == 1
    assert [one is not None and value_of(one) for one in results] == [1, 1, 1, 1]


@pytest.mark.parametrize("guilty", [False, True])
def test_a_lane_that_dies_meanwhile_is_made_up_for_by_the_gateway(
    connection: Connection, worker: WorkerEnd, gateway: Gateway, guilty: bool
) -> None:
    number = upcoming(connection)
    if guilty:
        worker.page.begin(5, number)
    worker.hang_up()
    exchange = connection._link.ask(last_of(X), X, time.monotonic() + PATIENCE_S)
    assert isinstance(exchange, Exchange)
    lanes = connection._link._lanes
    assert lanes is not None
    assert connection._link.pump(()) == []
    assert not lanes.has_mail  # it is on its way
    settle(connection, gateway, exchange)
    assert exchange.outcome().model_version == "of the gateway"
    (asked,) = gateway.inferences
    assert asked.id == exchange.id
    assert asked.parameters.suspect == guilty


def test_a_closed_connection_asks_nobody(connection: Connection, worker: WorkerEnd) -> None:
    connection.close()
    with pytest.raises(ClientClosed):
        ask(connection)
    assert worker.requests() == []


def test_a_connection_that_a_fork_inherited_asks_nobody(
    connection: Connection, worker: WorkerEnd
) -> None:
    connection._pid, own = -1, connection._pid
    with pytest.raises(ClientClosed, match="a fork"):
        ask(connection)
    assert worker.requests() == []
    connection._pid = own
