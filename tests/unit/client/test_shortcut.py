"""A request like the last by its shortcut: when it is taken, what it gives, and what ends it."""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.client import (
    Client,
    ClientClosed,
    DeadlineExceeded,
    InvalidArgument,
    Result,
)
from superbrain.client.connection import Connection
from superbrain.transport import compiled
from superbrain.wire import lane
from superbrain.wire.errors import Internal, NotFound
from superbrain.wire.messages import InferResponse, TensorHeader
from tests.support.lane_ends import WorkerEnd, X
from tests.support.lone_client import (
    PATIENCE_S,
    Answering,
    Gateway,
    bring_on_lane,
    give_back,
    lanes_of,
    upcoming,
    wait_of,
)
from tests.support.shortcuts import Shortcuts
from tests.support.twins import MISSING

HEADER = msgspec.json.encode(InferResponse("m", "1", [TensorHeader("y", "FP32", [1])]))
LONG_NS = 10_000_000_000  # all that happens in a test is brief


@pytest.fixture
def shortcuts(monkeypatch: pytest.MonkeyPatch) -> Shortcuts:
    """Count them, where one may look for as long as it takes."""
    if compiled.loop() is None:
        pytest.skip(MISSING)
    return Shortcuts(monkeypatch, LONG_NS)


@pytest.fixture
def client(gateway: Gateway, worker: WorkerEnd, shortcuts: Shortcuts) -> Iterator[Client]:
    """One that has a shortcut for `m`."""
    client = Client(gateway.endpoint, timeout=PATIENCE_S)
    bring_on_lane(client._connection(), gateway, worker)
    arm(client, worker)
    shortcuts.results.clear()
    yield client
    client.close()


def connection_of(client: Client) -> Connection:
    return client._connection()


def infer(client: Client, worker: WorkerEnd, value: float = 0, **options: Any) -> Result:  # noqa: ANN401
    """Ask what the worker answers before."""
    worker.reply(upcoming(connection_of(client)), value)
    result = client.infer("m", X, **options)
    assert result["y"].tolist() == [value]
    return result


def arm(client: Client, worker: WorkerEnd) -> None:
    for _ in range(6):
        infer(client, worker)
    assert list(connection_of(client).shortcuts) == ["m"]
    worker.requests()


def arm_hasty(client: Client, worker: WorkerEnd) -> None:
    """Let the next request by a shortcut look for nothing: it sleeps, and then goes on."""
    infer(client, worker)  # takes with it what comes late
    wait = wait_of(connection_of(client))
    connection_of(client)._used()
    wait.lane_moment_ns = 1  # type: ignore[misc]
    wait._last_ns = 0
    infer(client, worker)
    assert list(connection_of(client).shortcuts) == ["m"]
    worker.requests()
    wait.lane_moment_ns = LONG_NS  # type: ignore[misc]


@pytest.fixture
def answering(worker: WorkerEnd, gateway: Gateway) -> Iterator[Callable[..., Answering]]:
    """Let the worker do that with all requests from here on."""
    threads: list[Answering] = []

    def begin(*does: Any, **options: Any) -> Answering:  # noqa: ANN401
        threads.append(Answering(worker, gateway, *does, **options))
        threads[-1].start()
        return threads[-1]

    yield begin
    for thread in threads:
        thread.stop()


@contextmanager
def serving(gateway: Gateway) -> Iterator[None]:
    """Let the gateway answer meanwhile; there is no worker any more."""
    stops = threading.Event()

    def serve() -> None:
        while not stops.is_set():
            gateway.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stops.set()
        thread.join()


def is_right(client: Client, worker: WorkerEnd) -> None:
    """Whatever was before: what is asked now is answered as it is asked."""
    for value in range(8):
        infer(client, worker, value)
    worker.requests()


def x(value: float) -> dict[str, Any]:
    return {"x": np.array([value], np.float32)}


# --- it is taken ---------------------------------------------------------------------------------


def test_every_request_like_the_last_is_taken(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts
) -> None:
    results = [infer(client, worker, value) for value in range(50)]
    assert shortcuts.results == results
    requests = worker.requests()
    assert len({result.id for result in results}) == 50
    for result, request in zip(results, requests, strict=True):
        name, number = result.id.split("-")
        assert msgspec.json.decode(request.header)["id"] == name
        assert request.request_id == int(number)


def test_a_result_is_as_it_is_the_other_way(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts
) -> None:
    short = infer(client, worker, 3)
    assert shortcuts.results == [short]
    long = infer(client, worker, 3, priority=1)
    assert len(shortcuts.results) == 1
    for one in (short, long):
        assert type(one) is Result
        assert repr(one) == "<Result of m 1 {y: float32[1]}>"
        assert {name: array.tolist() for name, array in one.items()} == {"y": [3]}
        with pytest.raises(KeyError, match="this answer has: y"):
            one["z"]
        array = one["y"]
        assert type(array) is np.ndarray
        assert (array.dtype, array.shape, array.strides) == (np.dtype(np.float32), (1,), (4,))
        assert array.flags.writeable
        array[:] = 9
        assert one["y"][0] == 9
        assert type(one.id) is type(one.model_name) is type(one.model_version) is str
    assert not np.shares_memory(short["y"], long["y"])
    assert dict(short) == dict(long)


def test_the_request_is_as_any_other(client: Client, worker: WorkerEnd) -> None:
    frames = []
    for options in ({}, {"priority": 1}):
        asked_at = time.monotonic_ns()
        infer(client, worker, timeout=7, **options)
        (frame,) = worker.requests()
        assert asked_at < frame.deadline_ns - 7_000_000_000 < time.monotonic_ns()
        frames.append(frame)
    short, long = frames
    header = msgspec.json.decode(long.header)
    del header["parameters"]["priority"]
    assert {"parameters": {}} | msgspec.json.decode(short.header) == header
    assert [bytes(one) for one in short.tensors] == [bytes(one) for one in long.tensors]
    assert (short.kind, short.priority) == (lane.REQUEST, 0)


def test_without_a_limit_the_request_has_no_deadline(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts
) -> None:
    infer(client, worker, timeout=math.inf)
    infer(client, worker, timeout=1e10)  # more than a frame can say
    client.timeout = math.inf
    infer(client, worker)
    assert [frame.deadline_ns for frame in worker.requests()] == [0, 0, 0]
    assert len(shortcuts.results) == 3


def test_the_timeout_of_the_client_is_what_it_is_now(client: Client, worker: WorkerEnd) -> None:
    client.timeout = 100.0
    infer(client, worker)
    (frame,) = worker.requests()
    assert 90 < frame.deadline_ns / 1e9 - time.monotonic() < 100


@pytest.mark.parametrize("timeout", [0, -1, -0.5, math.nan, "1", 10**400, [1]])
def test_a_timeout_that_is_none_is_refused_as_without(
    client: Client,
    worker: WorkerEnd,
    shortcuts: Shortcuts,
    timeout: Any,  # noqa: ANN401
) -> None:
    found = []
    for inputs in (X, {"x": [1.0]}):  # the second goes the long way
        with pytest.raises(InvalidArgument) as caught:
            client.infer("m", inputs, timeout=timeout)
        found.append((caught.type, str(caught.value)))
    assert found[0] == found[1]
    assert worker.requests() == []
    assert list(connection_of(client).shortcuts) == ["m"]
    infer(client, worker, 4)
    assert len(shortcuts.results) == 1


def test_nothing_is_kept_of_what_was_answered(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts
) -> None:
    def ask(times: int) -> None:
        for _ in range(times):
            infer(client, worker)
            worker.requests()
            shortcuts.results.clear()

    ask(200)
    (last,) = [client._alike.last("m")]
    assert last is not None
    watched = [X, X["x"], last, last.packing, last.answers, Result, None, "m", client]
    watched += [connection_of(client), *last.answers.values()]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        ask(100)
        before, counts = tracemalloc.get_traced_memory()[0], [*map(sys.getrefcount, watched)]
        objects = len(gc.get_objects())
        ask(3000)
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
        assert len(gc.get_objects()) - objects < 50
        for one, count in zip(watched, counts, strict=True):
            assert abs(sys.getrefcount(one) - count) < 50, one
    finally:
        tracemalloc.stop()
        gc.enable()


def test_a_client_that_nobody_holds_is_collected_with_its_lane(
    client: Client, worker: WorkerEnd
) -> None:
    other = Client(client.endpoint)
    other._connections, client._connections = client._connections, {}
    other._latest, client._latest = client._latest, None
    other._alike = client._alike
    infer(other, worker)
    assert other._latest is not None
    assert other._latest.shortcuts
    fd = lanes_of(other._latest)[0].socket.fd
    del other
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it says that nobody closed it
        gc.collect()
    worker.requests()
    worker.requests()
    assert worker.open_socket.ended
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# --- what ends it --------------------------------------------------------------------------------


def test_a_connection_that_is_used_otherwise_says_so(client: Client, worker: WorkerEnd) -> None:
    connection = connection_of(client)
    (shortcut,) = connection.shortcuts.values()
    assert shortcut.good is True
    connection._used()
    assert [shortcut.good] == [False]
    assert connection.shortcuts == {}
    assert shortcut.ask(connection, X, 1.0) is None
    assert worker.requests() == []


UNLIKE: dict[str, dict[str, Any]] = {
    "datatype": {"x": np.ones(1, np.float64)},
    "byte order": {"x": np.ones(1, ">f4")},
    "shape": {"x": np.ones(2, np.float32)},
    "rank": {"x": np.ones((1, 1), np.float32)},
    "no rank": {"x": np.float32(1)},
    "strides": {"x": np.ones(4, np.float32)[::2]},
    "name": {"w": np.ones(1, np.float32)},
    "one more": {"x": np.ones(1, np.float32), "z": np.ones(1, np.float32)},
    "nothing": {},
    "list": {"x": [1.0]},
    "number": {"x": 1.0},
    "kind of array": {"x": np.ma.masked_array(np.ones(1, np.float32))},
}


@pytest.mark.parametrize("unlike", UNLIKE)
def test_inputs_that_are_not_alike_go_the_long_way(
    client: Client, shortcuts: Shortcuts, answering: Callable[..., Answering], unlike: str
) -> None:
    asked: list[lane.LaneFrame] = []

    def does(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
        asked.append(frame)
        worker.reply(frame.request_id, 5)

    answering(does)
    inputs = UNLIKE[unlike]
    try:
        result = client.infer("m", inputs)
    except InvalidArgument:
        assert unlike == "no rank"
    else:
        assert result["y"].tolist() == [5]
        (frame,) = asked
        headers = msgspec.json.decode(frame.header)["inputs"]
        assert [one["name"] for one in headers] == list(inputs)
        for one, header, data in zip(inputs.values(), headers, frame.tensors, strict=True):
            little = np.asarray(one, None if isinstance(one, np.ndarray) else np.float32)
            assert header["shape"] == list(little.shape)
            assert bytes(data) == little.astype(little.dtype.newbyteorder("<")).tobytes()
    assert shortcuts.results == []
    assert client.infer("m", X)["y"].tolist() == [5]


def test_arrays_that_are_alike_are_taken_though_they_lie_elsewhere(
    client: Client, shortcuts: Shortcuts, answering: Callable[..., Answering]
) -> None:
    answering()
    many = np.arange(8, dtype=np.float32)
    many.flags.writeable = False
    for n in range(8):
        assert client.infer("m", {"x": many[n : n + 1]})["y"].tolist() == [n]
    assert len(shortcuts.results) == 8


@pytest.mark.parametrize(
    "options",
    [{"version": "1"}, {"priority": 3}, {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}],
    ids=lambda options: next(iter(options)),
)
def test_what_is_asked_for_besides_is_sent(
    client: Client,
    shortcuts: Shortcuts,
    answering: Callable[..., Answering],
    options: dict[str, Any],
) -> None:
    asked: list[lane.LaneFrame] = []

    def does(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
        asked.append(frame)
        give_back(worker, frame)

    answering(does)
    assert client.infer("m", x(2), **options)["y"].tolist() == [2]
    (frame,) = asked
    header = msgspec.json.decode(frame.header)
    said = header["parameters"] | {"priority": frame.priority, "version": header["model_version"]}
    assert said.items() >= options.items()
    assert shortcuts.results == []
    assert client.infer("m", x(3))["y"].tolist() == [3]


def test_a_program_that_imports_opentelemetry_meanwhile_is_traced(
    client: Client,
    worker: WorkerEnd,
    shortcuts: Shortcuts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    infer(client, worker)
    assert len(shortcuts.results) == 1
    api = pytest.importorskip("opentelemetry.trace")
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", api)
    infer(client, worker)
    assert len(shortcuts.results) == 1
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    is_right(client, worker)
    assert len(shortcuts.results) > 1


def test_inputs_that_change_while_they_are_asked_with_stay_what_was_sent(
    client: Client, shortcuts: Shortcuts, answering: Callable[..., Answering]
) -> None:
    inputs = x(1)

    def does(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
        inputs["x"][:] = 7
        give_back(worker, frame)

    answering(does)
    assert client.infer("m", inputs)["y"].tolist() == [1]
    assert client.infer("m", inputs)["y"].tolist() == [7]
    assert len(shortcuts.results) == 2


def test_another_thread_ends_it_for_good(
    client: Client, shortcuts: Shortcuts, answering: Callable[..., Answering]
) -> None:
    answering()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(client.infer, "m", x(3)).result()["y"].tolist() == [3]
    assert connection_of(client).shortcuts == {}
    for value in range(8):
        assert client.infer("m", x(value))["y"].tolist() == [value]
    assert shortcuts.results == []


@pytest.mark.parametrize("before", [False, True])
def test_what_is_under_way_is_not_mixed_up_with_what_comes_next(
    client: Client, shortcuts: Shortcuts, answering: Callable[..., Answering], before: bool
) -> None:
    answering()
    pending = client.submit("m", x(9))
    if before:
        assert pending.result()["y"].tolist() == [9]
    for value in range(8):
        assert client.infer("m", x(value))["y"].tolist() == [value]
    assert pending.result()["y"].tolist() == [9]
    for value in range(4):
        assert client.infer("m", x(value))["y"].tolist() == [value]
    assert shortcuts.results
    assert len({result.id for result in shortcuts.results}) == len(shortcuts.results)


def test_what_was_submitted_and_is_looked_at_ends_it(
    client: Client, worker: WorkerEnd, answering: Callable[..., Answering]
) -> None:
    pending = client.submit("other", X)
    arm(client, worker)
    assert not pending.done()
    assert connection_of(client).shortcuts == {}
    arm(client, worker)
    pending.cancel()
    assert connection_of(client).shortcuts == {}
    arm(client, worker)
    client.submit("other", X)
    assert connection_of(client).shortcuts == {}
    answering()
    assert client.infer("m", X)["y"].tolist() == [1]


def test_a_closed_client_asks_nobody(client: Client, worker: WorkerEnd) -> None:
    (shortcut,) = connection_of(client).shortcuts.values()
    client.close()
    assert shortcut.ask(connection_of(client), X, 1.0) is None
    with pytest.raises(ClientClosed, match="client is closed"):
        client.infer("m", X)
    assert worker.requests() == []


def test_who_closes_while_somebody_looks_waits_for_that_and_then_closes(
    client: Client, shortcuts: Shortcuts, answering: Callable[..., Answering]
) -> None:
    closes: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:

        def does(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
            closes.append(pool.submit(client.close))
            give_back(worker, frame)

        answering(does)
        assert client.infer("m", x(4))["y"].tolist() == [4]
        assert len(shortcuts.results) == 1
        closes[0].result()
    with pytest.raises(ClientClosed):
        client.infer("m", x(4))


def test_who_closes_while_somebody_sleeps_ends_the_request(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts, answering: Callable[..., Answering]
) -> None:
    arm_hasty(client, worker)
    shortcuts.results.clear()
    with ThreadPoolExecutor(1) as pool:
        answering(lambda *_: pool.submit(client.close) and None)
        with pytest.raises(ClientClosed, match="while the request was under way"):
            client.infer("m", x(4))
    assert shortcuts.results == []


def test_a_fork_asks_by_a_connection_of_its_own(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts
) -> None:
    (shortcut,) = connection_of(client).shortcuts.values()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside other threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert shortcut.ask(connection_of(client), X, 1.0) is None
            assert connection_of(client).shortcuts == {}
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert worker.requests() == []
    infer(client, worker, 4)
    assert len(shortcuts.results) == 1


# --- what the worker does ------------------------------------------------------------------------


def test_an_error_is_what_it_is(client: Client, worker: WorkerEnd, shortcuts: Shortcuts) -> None:
    worker.reply(upcoming(connection_of(client)), error=NotFound("gone", mend="look"))
    with pytest.raises(NotFound, match=r"^gone\. look$") as caught:
        client.infer("m", X)
    assert caught.value.mend == "look"
    assert len(shortcuts.begun) == 1
    is_right(client, worker)
    assert shortcuts.results


def test_an_error_that_cannot_be_read_is_internal(client: Client, worker: WorkerEnd) -> None:
    worker.open_socket.send_frame(lane.ERROR, b"{", [], upcoming(connection_of(client)))
    with pytest.raises(Internal, match="cannot be read"):
        client.infer("m", X)
    is_right(client, worker)


def test_an_answer_of_another_version_is_that(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts
) -> None:
    for version in ("2", "2", "2", "1", "2", "1"):
        worker.reply(upcoming(connection_of(client)), 3, version=version)
        result = client.infer("m", X)
        assert (result.model_version, result["y"].tolist()) == (version, [3])
    assert shortcuts.begun
    assert shortcuts.results  # both versions are known by then


def send(worker: WorkerEnd, number: int, *tensors: bytes, header: bytes = HEADER) -> None:
    worker.open_socket.send_frame(lane.RESPONSE, header, list(tensors), number)


@pytest.mark.parametrize(
    ("header", "tensors"),
    [
        (HEADER, [b"12345"]),
        (HEADER, [b""]),
        (HEADER, []),
        (HEADER, [b"1234", b"1234"]),
        (b"{", [b"1234"]),
        (b"", []),
        (b'{"model_name":"m","model_version":"1"}', [b"1234"]),
    ],
    ids=["long", "empty", "none", "two", "no header", "nothing", "outputs"],
)
def test_an_answer_that_does_not_fit_is_said(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts, header: bytes, tensors: list[bytes]
) -> None:
    send(worker, upcoming(connection_of(client)), *tensors, header=header)
    with pytest.raises(Internal, match="does not fit the protocol"):
        client.infer("m", X)
    assert shortcuts.results == []
    is_right(client, worker)


def test_of_two_answers_the_first_is_given_and_none_is_left(
    client: Client, worker: WorkerEnd
) -> None:
    number = upcoming(connection_of(client))
    worker.reply(number, 1)
    worker.reply(number, 2)
    assert client.infer("m", X)["y"].tolist() == [1]
    is_right(client, worker)


@pytest.mark.parametrize("behind", [False, True])
def test_an_answer_to_an_older_request_is_dropped(
    client: Client, worker: WorkerEnd, behind: bool
) -> None:
    number = upcoming(connection_of(client))
    older, newer = (number - 5, 7), (number, 3)
    for one, value in (newer, older) if behind else (older, newer):
        worker.reply(one, value)
    assert client.infer("m", X)["y"].tolist() == [3]
    is_right(client, worker)


def test_an_answer_to_a_request_that_is_not_asked_yet_is_dropped(
    client: Client, worker: WorkerEnd, answering: Callable[..., Answering]
) -> None:
    worker.reply(upcoming(connection_of(client)) + 100, 7)
    answering()
    for value in range(150):
        assert client.infer("m", x(value))["y"].tolist() == [value]


def test_an_answer_that_comes_after_its_deadline_is_dropped(
    client: Client, worker: WorkerEnd, answering: Callable[..., Answering]
) -> None:
    arm_hasty(client, worker)
    late = answering(lambda worker, frame: held.append(frame))
    held: list[lane.LaneFrame] = []
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.infer("m", x(5), timeout=0.01)
    assert 0.01 <= time.monotonic() - began < 5
    late.stop()
    give_back(worker, held[0])
    answering()
    for value in range(8):
        assert client.infer("m", x(value))["y"].tolist() == [value]


@pytest.mark.parametrize("timeout", [1e-9, 1e-4, 2.1e-3])
def test_a_short_time_is_kept(
    client: Client, worker: WorkerEnd, shortcuts: Shortcuts, timeout: float
) -> None:
    took_s = []
    for number in range(1, 21):
        arm_hasty(client, worker)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.infer("m", X, timeout=timeout)
        took_s.append(time.monotonic() - began)
        assert len(shortcuts.begun) == number
        (frame,) = worker.requests()
        worker.reply(frame.request_id)  # which is late
    assert timeout <= min(took_s) < timeout + 0.0018  # it would sleep 2 ms


@pytest.mark.parametrize("where", ["before", "after", "later"])
def test_a_goodbye_costs_no_answer(
    client: Client, worker: WorkerEnd, gateway: Gateway, where: str
) -> None:
    number = upcoming(connection_of(client))
    if where == "before":
        worker.open_socket.send_frame(lane.GOODBYE, b"", [], 0)
    worker.reply(number, 3)
    if where == "after":
        worker.open_socket.send_frame(lane.GOODBYE, b"", [], 0)
    assert client.infer("m", X)["y"].tolist() == [3]
    if where == "later":
        worker.open_socket.send_frame(lane.GOODBYE, b"", [], 0)
    worker.end(goodbye=False)
    with serving(gateway):
        for _ in range(4):
            assert client.infer("m", X).model_version == "of the gateway"
    assert not any(asked.parameters.suspect for asked in gateway.inferences)


def test_a_worker_that_has_said_goodbye_with_its_answer_is_asked_nothing_more(
    client: Client, worker: WorkerEnd, gateway: Gateway
) -> None:
    worker.reply(upcoming(connection_of(client)), 3)
    worker.open_socket.send_frame(lane.GOODBYE, b"", [], 0)
    assert client.infer("m", X)["y"].tolist() == [3]
    assert len(worker.requests()) == 1
    with serving(gateway):
        assert client.infer("m", X).model_version == "of the gateway"
    assert worker.requests() == []


@pytest.mark.parametrize("guilty", [False, True])
@pytest.mark.parametrize("how", ["hang up", "end", "garbage", "half a frame", "no worker's frame"])
def test_a_lane_that_ends_leaves_its_request_to_the_gateway(
    client: Client, worker: WorkerEnd, gateway: Gateway, how: str, guilty: bool
) -> None:
    number = upcoming(connection_of(client))
    (ended,) = lanes_of(connection_of(client))
    if guilty:
        worker.page.begin(5, number)
    if how == "garbage":
        worker.open_socket.send([b"\xff" * 100])
    elif how == "half a frame":
        worker.open_socket.send([b"".join(map(bytes, lane.encode(lane.RESPONSE, HEADER)))[:-3]])
        worker.hang_up()
    elif how == "no worker's frame":
        worker.open_socket.send_frame(lane.REQUEST, b"{", [], number)
    elif how == "hang up":
        worker.hang_up()
    else:
        worker.end(goodbye=False)
    with serving(gateway):
        assert client.infer("m", X).model_version == "of the gateway"
    (asked,) = gateway.inferences
    assert asked.id.endswith(f"-{number}")
    assert asked.parameters.suspect == guilty
    assert asked.inputs[0].name == "x"
    assert ended not in lanes_of(connection_of(client))


def test_an_answer_in_pieces_is_put_together(
    client: Client, answering: Callable[..., Answering]
) -> None:
    def does(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
        value = bytes(frame.tensors[0])
        data = b"".join(
            map(bytes, lane.encode(lane.RESPONSE, HEADER, [value], request_id=frame.request_id))
        )
        for n in range(len(data)):
            worker.open_socket.send([data[n : n + 1]])
            os.sched_yield()

    answering(does)
    for value in range(20):
        assert client.infer("m", x(value))["y"].tolist() == [value]


@pytest.fixture
def large(
    client: Client, shortcuts: Shortcuts, answering: Callable[..., Answering]
) -> dict[str, Any]:
    """More than the lane takes while its worker does not read; there is a shortcut for it."""
    inputs = {"x": np.zeros(500_000, np.float32)}
    answers = answering()
    while not shortcuts.results:
        client.infer("m", inputs)
    answers.stop()
    sock = lanes_of(connection_of(client))[0].socket._socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return inputs


def test_what_the_worker_does_not_take_at_once_is_sent_by_and_by(
    client: Client,
    shortcuts: Shortcuts,
    answering: Callable[..., Answering],
    large: dict[str, Any],
) -> None:
    asked: list[bytes] = []

    def does(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
        asked.append(bytes(frame.tensors[0]))
        give_back(worker, frame)

    large["x"][:] = np.arange(large["x"].size)
    answering(does)
    assert client.infer("m", large)["y"].tolist() == [0]
    assert asked == [large["x"].tobytes()]
    assert len(shortcuts.begun) == 1
    assert client.infer("m", x(4))["y"].tolist() == [4]


def test_a_worker_that_never_reads_costs_a_request_its_time_and_no_more(
    client: Client,
    shortcuts: Shortcuts,
    answering: Callable[..., Answering],
    large: dict[str, Any],
) -> None:
    with pytest.raises(DeadlineExceeded):
        client.infer("m", large, timeout=0.01)
    assert len(shortcuts.begun) == 1
    answering()
    for value in range(8):
        assert client.infer("m", x(value))["y"].tolist() == [value]


# --- signals -------------------------------------------------------------------------------------


@pytest.fixture
def _interrupts() -> Iterator[None]:
    """Let SIGINT do what it does in a program, where nothing is collected meanwhile."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


def interrupts(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    give_back(worker, frame)


@pytest.mark.usefixtures("_interrupts")
@pytest.mark.parametrize("sleeps", [False, True])
def test_an_interrupt_is_raised_and_the_next_request_is_right(
    client: Client, worker: WorkerEnd, answering: Callable[..., Answering], sleeps: bool
) -> None:
    connection = connection_of(client)
    for _ in range(20):
        (arm_hasty if sleeps else arm)(client, worker)
        answers = answering(interrupts)
        with pytest.raises(KeyboardInterrupt):
            client.infer("m", x(5))
        assert not connection._lock.locked()
        assert connection._leading is None
        answers.stop()
        is_right(client, worker)


@pytest.mark.parametrize("sleeps", [False, True])
def test_a_handler_of_a_signal_runs_and_the_answer_is_given(
    client: Client, worker: WorkerEnd, answering: Callable[..., Answering], sleeps: bool
) -> None:
    (arm_hasty if sleeps else arm)(client, worker)
    handled: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: handled.append(number))
    try:
        answering(interrupts)
        assert client.infer("m", x(5))["y"].tolist() == [5]
    finally:
        signal.signal(signal.SIGINT, before)
    assert handled == [signal.SIGINT]


def raised_in(function: str) -> Callable[[FrameType, str, object], None]:
    """Interrupt as that begins: the first place at which a signal is heeded after it came."""

    def trace(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_code.co_name == function:
            sys.settrace(None)
            raise KeyboardInterrupt

    return trace


def test_an_interrupt_while_only_a_part_was_sent_does_not_let_the_next_go_into_its_middle(
    client: Client, answering: Callable[..., Answering], large: dict[str, Any]
) -> None:
    sys.settrace(raised_in("_go_on"))
    with pytest.raises(KeyboardInterrupt):
        client.infer("m", large)
    answering()
    for value in range(4):
        result = client.infer("m", x(value), timeout=2)
        assert result.model_version == "of the gateway" or result["y"].tolist() == [value]
