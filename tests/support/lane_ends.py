"""Both ends of a client's lanes over real sockets, without threads: the test plays the worker."""

from __future__ import annotations

import math
import os
import select
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from superbrain.client import calls
from superbrain.client.alike import Alike, Last
from superbrain.client.lane import Lane
from superbrain.client.lanes import Lanes
from superbrain.client.ledger import Exchange, Ledger
from superbrain.client.result import Result
from superbrain.transport.brief_wait import BriefWait
from superbrain.transport.flight import FlightPage
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.errors import DeadlineExceeded, RequestError
from superbrain.wire.messages import InferResponse, Resolved, TensorHeader, encode_error

X = {"x": np.ones(1, np.float32)}


class WorkerEnd:
    """The worker's end of a lane, played by the test."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.page = FlightPage()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self.socket: LaneSocket | None = None

    def greet(self, window: int = 2) -> None:
        self.socket = LaneSocket(self._listener.accept()[0])
        hello = lane.Hello("m", "1", 1, window, lane=5)
        frame = lane.encode(lane.HELLO, msgspec.json.encode(hello))
        self.socket.send_descriptor(frame[0], self.page.fd)

    @property
    def open_socket(self) -> LaneSocket:
        assert self.socket is not None
        return self.socket

    def requests(self) -> list[lane.LaneFrame]:
        return self.open_socket.receive()

    def answer(self, frame: lane.LaneFrame, error: RequestError | None = None) -> None:
        header = msgspec.json.encode(InferResponse("m", "1", []))
        kind = lane.RESPONSE
        if error is not None:
            kind, header = lane.ERROR, encode_error(error)
        self.open_socket.send(lane.encode(kind, header, request_id=frame.request_id))

    def reply(
        self,
        number: int,
        value: float = 0,
        *,
        version: str = "1",
        error: RequestError | None = None,
    ) -> None:
        """Answer the request of that number, which may be before it is asked, with `y` = value."""
        if error is not None:
            self.open_socket.send_frame(lane.ERROR, encode_error(error), [], number)
            return
        y = TensorHeader("y", "FP32", [1])
        header = msgspec.json.encode(InferResponse("m", version, [y]))
        tensor = np.array([value], np.float32).tobytes()
        self.open_socket.send_frame(lane.RESPONSE, header, [tensor], number)

    def hang_up(self) -> None:
        """Send nothing any more, but take what comes: the client sees a death."""
        self.open_socket._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()
        os.close(self.page.fd)
        if self.socket is not None:
            self.socket.close()

    def end(self, *, goodbye: bool) -> None:
        if goodbye:
            self.open_socket.send(lane.encode(lane.GOODBYE))
        self.open_socket.close()


def last_of(inputs: Mapping[str, Any], model: str = "m") -> Last:
    """What requests like this have in common."""
    alike = Alike()
    for _ in range(2):
        alike.remember(calls.infer(model, inputs), inputs)
    last = alike.last(model)
    assert last is not None
    return last


class ClientEnd:
    """The lanes under test and what stands around them."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.ledger = Ledger("a")
        self.wait = BriefWait(self.epoll, lane_moment_ns=1000)
        self.lanes = Lanes(self.epoll, self.wait, self.ledger, lambda _: DeadlineExceeded("late"))
        self.last = last_of(X)

    @property
    def next_number(self) -> int:
        """Of the request that is asked next."""
        return self.ledger.next_id()[1] + 1

    @property
    def lane(self) -> Lane:
        """The only one there is."""
        (lane,) = self.lanes._models["m"].lanes
        return lane

    def ask_alike(
        self, inputs: Mapping[str, Any] = X, *, deadline: float = math.inf
    ) -> Result | Exchange | None:
        return self.lanes.ask(self.last, inputs, deadline)

    def ask(self, *, deadline: float = math.inf, priority: int = 0) -> tuple[Exchange, bool]:
        exchange = Exchange(calls.infer("m", X, priority=priority), deadline)
        self.ledger.enter(exchange)
        return exchange, self.lanes.take(exchange)

    def resolve(self, *paths: str) -> None:
        (question,) = self.lanes.take_mail()
        reply = msgspec.json.encode(Resolved("m", "1", list(paths)))
        question.answer(reply, [])
        assert self.lanes.resolved(question)

    def read(self, timeout_s: float = 5) -> list[Exchange]:
        settled: list[Exchange] = []
        for fd, _ in self.epoll.poll(timeout_s):
            settled += self.lanes.ready(fd) or []
        return settled


def connected(client: ClientEnd, worker: WorkerEnd, window: int = 2) -> None:
    client.ask()
    client.ask()
    client.resolve(worker.path)
    worker.greet(window)
    client.read()
