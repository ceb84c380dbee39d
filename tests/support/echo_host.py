"""A host in a thread of this process that gives back what it is asked, on many connections.

Its gateway speaks ZeroMQ, its worker the frames of a lane: `y` of an answer is `x` of its request.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import zmq

from superbrain.transport.flight import FlightPage
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.messages import (
    INFER,
    PROTOCOL,
    RESOLVE,
    RESULT,
    InferResponse,
    Resolved,
    TensorHeader,
)

VERSION_BY_LANE, VERSION_BY_GATEWAY = "by lane", "by gateway"


class EchoHost:
    """The model is `m`: it takes and gives one FP32 tensor.

    Attributes:
        endpoint: what to give to `Client`.
        holds: no inference is answered before so many have waited together, once.
        asked: is set by every inference that has come.
    """

    def __init__(self, folder: Path, *, lanes: bool) -> None:
        self.endpoint = f"ipc://{folder / 'gateway'}"
        self.holds = 0
        self.asked = threading.Event()
        self._path = str(folder / "lane")
        self._has_lanes = lanes
        self._page = FlightPage()
        self._context: zmq.Context[Any] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(self.endpoint)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen()
        self._lanes: dict[int, LaneSocket] = {}
        self._waiting: list[tuple[Any, Any, memoryview | bytes]] = []  # where, id, the bytes of x
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stops.set()
        self._thread.join()
        for one in self._lanes.values():
            one.close()
        self._listener.close()
        os.close(self._page.fd)
        self._context.destroy(linger=0)

    def _serve(self) -> None:
        while not self._stops.is_set():
            watched: list[Any] = [self._router, self._listener, *self._lanes]
            ready = select.select(watched, [], [], 0.001)[0]
            if self._listener in ready:
                self._greet()
            for fd in [one for one in ready if one in self._lanes]:
                self._read(fd)
            while self._router.poll(0):
                self._take(*self._router.recv_multipart())
            if self._waiting and len(self._waiting) >= self.holds:
                self.holds = 0
                for one in self._waiting:
                    self._answer(*one)
                self._waiting.clear()

    def _greet(self) -> None:
        one = LaneSocket(self._listener.accept()[0])
        self._lanes[one.fd] = one
        hello = msgspec.json.encode(lane.Hello("m", VERSION_BY_LANE, 1, 8, lane=5))
        one.send_descriptor(lane.encode(lane.HELLO, hello)[0], self._page.fd)

    def _read(self, fd: int) -> None:
        one = self._lanes[fd]
        for frame in one.receive():
            self._waiting.append((one, frame.request_id, frame.tensors[0]))
            self.asked.set()
        if one.ended:
            one.close()
            del self._lanes[fd]

    def _take(self, peer: bytes, verb: bytes, header: bytes, *tensors: bytes) -> None:
        request_id = msgspec.json.decode(header)["id"]
        if verb == PROTOCOL + INFER:
            self._waiting.append((peer, request_id, tensors[0]))
            self.asked.set()
            return
        assert verb == PROTOCOL + RESOLVE
        paths = [self._path] if self._has_lanes else []
        self._reply(peer, Resolved("m", VERSION_BY_LANE, paths, request_id))

    def _answer(self, where: LaneSocket | bytes, request_id: Any, x: memoryview | bytes) -> None:  # noqa: ANN401
        y = [TensorHeader("y", "FP32", [len(x) // np.dtype(np.float32).itemsize])]
        if isinstance(where, LaneSocket):
            header = msgspec.json.encode(InferResponse("m", VERSION_BY_LANE, y))
            where.send_frame(lane.RESPONSE, header, [x], request_id)
        else:
            self._reply(where, InferResponse("m", VERSION_BY_GATEWAY, y, request_id), x)

    def _reply(self, peer: bytes, answer: msgspec.Struct, *tensors: memoryview | bytes) -> None:
        header = msgspec.json.encode(answer)
        self._router.send_multipart([peer, PROTOCOL + RESULT, header, *tensors])
