"""Gateway and workers as real processes, ordered about over their real control channels.

with Stage(tmp_path) as stage:
    worker = stage.worker("name=adder,version=1")
    worker.bring_up()
    stage.gateway.route("adder", "1", [worker])
    with stage.client() as client:
        client.ask("adder", [1, 2, 3])
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import numpy as np
import zmq

from superbrain.domain import ctl
from superbrain.wire import lane
from superbrain.wire.datatypes import Array, datatype_of, decode_tensor, encode_tensor
from superbrain.wire.errors import RequestError
from superbrain.wire.messages import (
    ERROR,
    INFER,
    PROTOCOL,
    InferRequest,
    InferResponse,
    ModelMetadata,
    RequestedOutput,
    RequestParameters,
    TensorHeader,
    decode_error,
)

M = TypeVar("M", bound=ctl.Message)
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0
FROM_WORKER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ctl.FromWorker)
FROM_GATEWAY: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ctl.FromGateway)


def until(happened: Callable[[], object], what: str) -> None:
    """Poll for something that another process does."""
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < end, f"expected {what} within {PATIENCE_S} s"
        time.sleep(0.005)


class OrderFailed(Exception):
    """A child answered Failed."""

    def __init__(self, failed: ctl.Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Child:
    """One child process and our end of its control channel."""

    def __init__(self, command: list[str], decoder: msgspec.msgpack.Decoder[Any]) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(PATIENCE_S)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            fd = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, *command, "--ctl-fd", str(fd)], pass_fds=[fd], cwd=ROOT
            )
        self._buffer = ctl.MessageBuffer(decoder)
        self._received: deque[ctl.Message] = deque()
        self.unasked: list[ctl.Message] = []

    def order(self, message: ctl.Message, reply: type[M]) -> M:
        """Give an order and wait for its reply; others that come are kept in `unasked`."""
        self.say(message)
        return self.hear(reply)

    def say(self, message: ctl.Message) -> None:
        self.channel.sendall(ctl.encode_message(message))

    def hear(self, reply: type[M]) -> M:
        while True:
            while self._received:
                message = self._received.popleft()
                if isinstance(message, reply):
                    return message
                if isinstance(message, ctl.Failed):
                    raise OrderFailed(message)
                if not isinstance(message, ctl.LaneLost):  # of every worker that ends
                    self.unasked.append(message)
            data = self.channel.recv(1 << 16)
            if not data:
                raise EOFError(f"child ended with {self.process.wait(PATIENCE_S)}")
            self._received += self._buffer.feed(data)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.channel.close()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            if self.process.poll() is None:
                self.kill()


class WorkerChild(Child):
    """A worker process; with the fake model unless `load` names a bundle."""

    def __init__(self, lane_path: Path, worker_id: int, recipe: str, load: ctl.Load | None) -> None:
        self.load = load or ctl.Load(worker_id, "", "", recipe, str(lane_path))
        self.address = ctl.LaneAddress(self.load.lane_path, worker_id)
        isolated = ["-I", "-m", "superbrain.serve.worker_process"]
        super().__init__(isolated if load else ["-m", "tests.support.fake_worker"], FROM_WORKER)

    def bring_up(self) -> Self:
        self.order(self.load, ctl.Loaded)
        proof = self.order(ctl.Prove(), ctl.Proven).proof
        assert proof.passed, proof.first_failure
        self.serve()
        return self

    def serve(self) -> None:
        self.order(ctl.Serve(), ctl.Done)

    def stand_by(self) -> None:
        self.order(ctl.StandBy(), ctl.Done)

    def figures(self) -> ctl.WorkerPong:
        return self.order(ctl.Ping(), ctl.WorkerPong)

    def at_work(self) -> bool:
        """Whether it executes a request."""
        return self.figures().executing_s > 0


class GatewayChild(Child):
    """A gateway process."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            ["-I", "-m", "superbrain.serve.gateway", "--endpoint", endpoint], FROM_GATEWAY
        )
        self.endpoint = endpoint

    def begin(self) -> None:
        """Wait until it has bound its socket, and let it read."""
        self.hear(ctl.GatewayReady)
        self.order(ctl.Open(), ctl.Done)

    def route(
        self,
        model: str,
        version: str,
        workers: list[WorkerChild],
        *,
        queue_size: int = 64,
        timeout_ms: int = 20_000,
        reason: str = "",
    ) -> None:
        route = _route(model, version, workers)
        self.order(
            msgspec.structs.replace(
                route, queue_size=queue_size, request_timeout_ms=timeout_ms, reason=reason
            ),
            ctl.Done,
        )

    def prepare(self, model: str, version: str, workers: list[WorkerChild]) -> None:
        self.order(ctl.Prepare(_route(model, version, workers)), ctl.Done)

    def figures(self) -> ctl.GatewayPong:
        return self.order(ctl.Ping(), ctl.GatewayPong)


def _route(model: str, version: str, workers: list[WorkerChild]) -> ctl.Route:
    deployment_id = workers[0].load.deployment_id if workers else 0
    lanes = [worker.address for worker in workers]
    metadata = ModelMetadata(model, [version], "superbrain", [], [])
    return ctl.Route(model, version, deployment_id, lanes, metadata, 64, 20_000)


class Answer:
    """A reply taken apart; `error` is set when it is one."""

    def __init__(self, parts: list[bytes]) -> None:
        assert parts[0][:3] == PROTOCOL, parts[0]
        self.error: RequestError | None = None
        self.outputs: dict[str, Array] = {}
        self.raw = parts[1]
        self.id = str(msgspec.json.decode(parts[1]).get("id", ""))
        self.model_version = ""
        if parts[0][3:] == ERROR:
            self.error = decode_error(parts[1])
        elif b'"model_version"' in parts[1]:
            response = msgspec.json.decode(parts[1], type=InferResponse)
            self.model_version = response.model_version
            for header, data in zip(response.outputs, parts[2:], strict=True):
                array = decode_tensor(header.name, header.datatype, header.shape, data)
                self.outputs[header.name] = array

    @property
    def code(self) -> str:
        return self.error.code if self.error else "OK"


class Client:
    """A bare ZeroMQ client, DEALER or REQ."""

    def __init__(
        self, context: zmq.Context[Any], endpoint: str, kind: int, receive_watermark: int
    ) -> None:
        self._socket = zmq.Socket(context, kind)
        self._socket.setsockopt(zmq.RCVHWM, receive_watermark)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self._socket.connect(endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(
        self,
        model: str,
        values: list[float] | Array,
        *,
        id: str = "",
        version: str = "",
        timeout_ms: int = 0,
        priority: int = 0,
        outputs: tuple[str, ...] = (),
    ) -> None:
        array = np.asarray(values, np.float32)
        request = InferRequest(
            model,
            [TensorHeader("x", datatype_of(array), list(array.shape))],
            id,
            version,
            RequestParameters(timeout_ms, priority),
            [RequestedOutput(name) for name in outputs],
        )
        self.send_raw([PROTOCOL + INFER, msgspec.json.encode(request), encode_tensor(array)])

    def send_raw(self, parts: list[Any]) -> None:
        self._socket.send_multipart(parts)

    def receive(self) -> Answer:
        return Answer(self._socket.recv_multipart())

    def silent(self, milliseconds: int) -> bool:
        """Whether nothing comes within that time."""
        return not self._socket.poll(milliseconds)

    def ask(
        self,
        model: str,
        values: list[float] | Array,
        **options: Any,  # noqa: ANN401 - passed on
    ) -> Answer:
        self.send(model, values, **options)
        return self.receive()

    def query(self, verb: bytes, header: bytes = b"{}") -> Answer:
        self.send_raw([PROTOCOL + verb, header])
        return self.receive()


class Stage:
    """One gateway and any number of workers; ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = itertools.count(1)
        self._workers: list[WorkerChild] = []
        self._context: zmq.Context[Any] = zmq.Context()
        self.endpoint = f"ipc://{folder / 'infer.sock'}"
        self.gateway = GatewayChild(self.endpoint)

    def __enter__(self) -> Self:
        self.gateway.begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)
        for child in (*self._workers, self.gateway):
            child.close()

    def worker(self, recipe: str = "", load: ctl.Load | None = None) -> WorkerChild:
        """Start a worker, not yet brought up."""
        number = next(self._ids)
        worker = WorkerChild(self._folder / f"lane{number}", number, recipe, load)
        self._workers.append(worker)
        return worker

    def serving(self, recipe: str = "", **route: Any) -> WorkerChild:  # noqa: ANN401 - passed on
        """Start a worker, bring it up and route `adder` version 1 to it."""
        worker = self.worker(recipe).bring_up()
        self.gateway.route("adder", "1", [worker], **route)
        return worker

    def client(self, kind: int = zmq.DEALER, receive_watermark: int = 1000) -> Client:
        return Client(self._context, self.endpoint, kind, receive_watermark)


def lane_frames(peer: socket.socket, count: int) -> list[lane.LaneFrame]:
    """Read the next frames of a lane."""
    decoder = lane.LaneDecoder()
    frames: list[lane.LaneFrame] = []
    while len(frames) < count:
        received = peer.recv_into(decoder.buffer())
        assert received, "expected more frames, found the end of the lane"
        frames += decoder.received(received)
    return frames
