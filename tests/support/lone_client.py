"""A host for one client in this process, played by the test: a gateway that knows one worker.

The worker answers before it is asked, in which case nothing has to wait and no thread is needed; or
`Answering` answers in a thread what comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

from superbrain.client import calls
from superbrain.client.connection import Connection
from superbrain.client.ledger import Exchange
from superbrain.transport.brief_wait import BriefWait
from superbrain.wire import lane
from superbrain.wire.messages import (
    INFER,
    MODEL_METADATA,
    PROTOCOL,
    RESOLVE,
    RESULT,
    SERVER_METADATA,
    InferRequest,
    InterfaceTensor,
    ModelMetadata,
)
from superbrain.wire.trace_context import EXTENSION
from tests.support.lane_ends import WorkerEnd, X

PATIENCE_S = 20.0
INTERFACE = ModelMetadata(
    "m",
    ["1"],
    "superbrain",
    [InterfaceTensor("x", "FP32", [-1])],
    [InterfaceTensor("y", "FP32", [1])],
)


class Gateway:
    """A gateway, played by the test: it knows one worker, and answers what is left to it."""

    def __init__(self, folder: Path, worker: WorkerEnd) -> None:
        self.endpoint = f"ipc://{folder / 'gateway'}"
        self._worker = worker
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(self.endpoint)
        self.inferences: list[InferRequest] = []

    def serve(self) -> None:
        """Answer what has come, without waiting."""
        while self._socket.poll(0):
            peer, verb, header, *_ = self._socket.recv_multipart()
            asked = msgspec.json.decode(header)
            answer = self._answer(verb, header) | {"id": asked["id"]}
            self._socket.send_multipart([peer, PROTOCOL + RESULT, msgspec.json.encode(answer)])

    def _answer(self, verb: bytes, header: bytes) -> dict[str, Any]:
        if verb == PROTOCOL + RESOLVE:
            return {"lanes": [self._worker.path], "version": "1", "name": "m"}
        if verb == PROTOCOL + SERVER_METADATA:
            return {"name": "superbrain", "version": "1", "extensions": [EXTENSION]}
        if verb == PROTOCOL + MODEL_METADATA:
            return msgspec.to_builtins(INTERFACE)  # type: ignore[no-any-return]
        assert verb == PROTOCOL + INFER
        self.inferences.append(msgspec.json.decode(header, type=InferRequest))
        return {"model_name": "m", "model_version": "of the gateway", "outputs": []}

    def close(self) -> None:
        self._context.destroy(linger=0)


def lanes_of(connection: Connection) -> list[Any]:
    lanes = connection._link._lanes
    assert lanes is not None
    return [found for _, found in lanes._by_fd.values()]


def wait_of(connection: Connection) -> BriefWait:
    wait = connection._link._wait
    assert wait is not None
    return wait


def upcoming(connection: Connection) -> int:
    """The number of the request that is asked next."""
    return connection._link.ledger.next_id()[1] + 1


def pump(connection: Connection, gateway: Gateway) -> None:
    gateway.serve()
    connection._link.pump(connection._link.poll(0.001))


def settle(connection: Connection, gateway: Gateway, exchange: Exchange) -> None:
    while not connection.look(exchange):
        gateway.serve()


def bring_on_lane(connection: Connection, gateway: Gateway, worker: WorkerEnd) -> None:
    """Ask until the connection has a lane, by which the last request went."""
    for _ in range(2):
        exchange = Exchange(calls.infer("m", X), time.monotonic() + PATIENCE_S)
        connection.send(exchange)
        settle(connection, gateway, exchange)
    while not lanes_of(connection):
        pump(connection, gateway)
    worker.greet()
    while not lanes_of(connection)[0].window:
        pump(connection, gateway)
    gateway.inferences.clear()
    worker.reply(upcoming(connection))
    connection.ask(calls.infer("m", X), time.monotonic() + PATIENCE_S)
    worker.requests()


def give_back(worker: WorkerEnd, frame: lane.LaneFrame) -> None:
    """Answer with what was asked."""
    value = np.frombuffer(frame.tensors[0], np.float32)[0]
    worker.reply(frame.request_id, float(value))


class Answering(threading.Thread):
    """The worker in a thread, which does with each request what `does` says; and the gateway.

    It gives each request back unless something else is said.
    """

    def __init__(
        self,
        worker: WorkerEnd,
        gateway: Gateway,
        does: Callable[[WorkerEnd, lane.LaneFrame], None] = give_back,
        *,
        serves_gateway: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self._worker, self._gateway, self._does = worker, gateway, does
        self._serves_gateway = serves_gateway
        self._stops = threading.Event()

    def run(self) -> None:
        """Answer until `stop`."""
        while not self._stops.is_set():
            for frame in self._worker.requests():
                self._does(self._worker, frame)
            if self._serves_gateway:
                self._gateway.serve()

    def stop(self) -> None:
        """Answer nothing any more."""
        self._stops.set()
        self.join()
