"""A worker's data loop in this process, and peers on real lanes of it; one turn at a time.

>>> bench = Loop(tmp_path / "lane", monkeypatch)
>>> peer = bench.connect()
>>> frame = bench.ask(peer, header, [tensor])
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.domain.manifest import Batching
from superbrain.serve import worker_loop
from superbrain.serve.executor import Executor
from superbrain.serve.figures import WorkerFigures
from superbrain.serve.stage_clock import StageClock
from superbrain.serve.worker_loop import LaneLoop
from superbrain.serve.worker_records import WorkerRecords
from superbrain.transport import flight
from superbrain.transport.flight import FlightPage
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array, datatype_of
from superbrain.wire.errors import RequestError
from superbrain.wire.messages import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    SharedMemory,
    TensorHeader,
    decode_error,
)

_names = count(1)
FAR_NS = 60_000_000_000
ID = "id"


def add_one(request: dict[str, Array]) -> dict[str, Array]:
    """Give `y`, one more than `x`, and `z`, the sum of all elements of all inputs."""
    total = sum(np.sum(array, dtype=np.float64) for array in request.values())
    return {"y": request["x"] + np.float32(1), "z": np.array([total], np.float64)}


class Model:
    """Does what `does` says, and remembers how it was asked."""

    name, version, runtime = "adder", "1", "test"
    outputs: Sequence[str] = ("y", "z")
    request_timeout_ms = 30_000

    def __init__(self, page: FlightPage, figures: WorkerFigures) -> None:
        self.queue_size = 8
        self.batching = Batching()
        self.does: Callable[[dict[str, Array]], dict[str, Array]] = add_one
        self.clock = StageClock()
        self.asked = 0
        self.flights: list[frozenset[int] | None] = []
        self.names: list[list[str]] = []
        self.writeable: set[bool] = set()
        self._page, self._figures = page, figures

    def infer(self, request: dict[str, Array]) -> dict[str, Array]:
        self.asked += 1
        self.flights.append(flight.executing(self._page.fd, 1))
        self.names.append(self._figures.executing())
        assert self._figures.executing_since_ns > 0
        self.writeable |= {array.flags.writeable for array in request.values()}
        self.clock.first_ns = self.clock.first_ns or time.monotonic_ns()  # as an engine does
        self.clock.engine_ns += 1
        return self.does(request)

    answer = infer

    def bound(self) -> None:
        """Nothing is bound: every request has to come to `infer`."""

    def infer_together(self, *asked: Any) -> Any:  # noqa: ANN401
        requests, executing = asked
        executing(range(len(requests)))
        return [self.infer(request) for request in requests]

    def prove(self) -> Any:  # noqa: ANN401
        raise NotImplementedError

    def time(self) -> Any:  # noqa: ANN401
        raise NotImplementedError

    def reprove(self, case: int) -> Any:  # noqa: ANN401
        raise NotImplementedError


class Loop:
    """A loop that serves `model`, and has all the time there is to finish what has come.

    `at_once`: how many requests were executed as they were received. `in_steps`: how many took the
    long way. All others were executed in one step, when it was their turn.
    """

    def __init__(
        self, path: Path, patch: pytest.MonkeyPatch, records: WorkerRecords | None = None
    ) -> None:
        self.path = path
        self.memory_name = f"superbrain-loop-{next(_names)}:"
        self.at_once = self.in_steps = 0
        self.page = FlightPage()
        self.figures = WorkerFigures()
        self.model = Model(self.page, self.figures)
        self.number = 0
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.setblocking(False)
        patch.setattr(worker_loop, "_FINISH_NS", FAR_NS)
        self.loop = LaneLoop(
            self._wake_fd, lambda: None, self.figures, self._listener, self.page, records
        )
        self.peers: list[LaneSocket] = []
        self._count(patch)
        self.serve()

    def _count(self, patch: pytest.MonkeyPatch) -> None:
        spell, steps = Executor.spell, Executor._execute_in_steps

        def counted_spell(executor: Executor, *args: Any) -> Any:  # noqa: ANN401
            done = spell(executor, *args)
            self.at_once += 0 if done is None else done.executed
            return done

        def counted_steps(executor: Executor, *args: Any) -> int:  # noqa: ANN401
            self.in_steps += 1
            return steps(executor, *args)

        patch.setattr(Executor, "spell", counted_spell)
        patch.setattr(Executor, "_execute_in_steps", counted_steps)

    def serve(self) -> None:
        """Serve the model as it is now."""
        self.loop.serve(self.model, 7, 1.0)

    def connect(self) -> LaneSocket:
        """Open a lane; the first one has the number 1."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        peer = LaneSocket(sock)
        self.peers.append(peer)
        self.loop.turn()
        (hello,) = self.answers(peer)
        assert hello.kind == lane.HELLO
        return peer

    def answers(self, peer: LaneSocket, count: int = 1) -> list[lane.LaneFrame]:
        """Take so many frames; the loop has its turn as long as they have not come."""
        frames = peer.receive()
        while len(frames) < count and not peer.ended:
            if not anything(peer.fd):
                self.loop.turn()
            frames += peer.receive()
        assert len(frames) == count
        return frames

    def send(
        self,
        peer: LaneSocket,
        header: bytes,
        tensors: Sequence[lane.Data] = (),
        deadline_ns: int = 0,
        kind: int = lane.REQUEST,
        priority: int = 0,
    ) -> int:
        """Send a request; give its number."""
        self.number += 1
        peer.send_frame(kind, header, tensors, self.number, deadline_ns, priority)
        assert not peer.pending_bytes
        return self.number

    def ask(
        self, peer: LaneSocket, header: bytes, tensors: Sequence[lane.Data] = ()
    ) -> lane.LaneFrame:
        """Send one request alone, and give what comes back."""
        number = self.send(peer, header, tensors)
        self.loop.turn()
        (frame,) = self.answers(peer)
        assert frame.request_id == number
        self.assert_idle()
        return frame

    def settle(self) -> None:
        """Let the loop have its turns until it has nothing to do."""
        while self.loop.waiting or anything(self.loop._epoll.fileno()):
            self.loop.turn()

    def stand_by_soon(self) -> None:
        """Let the loop be told, as by the daemon, to stand by."""
        self.loop._on_wake = self.loop.stand_by
        os.eventfd_write(self._wake_fd, 1)

    def assert_idle(self) -> None:
        """Nothing is said to be executed."""
        assert self.page.page[0] == 0
        assert self.figures.executing_since_ns == 0
        assert self.figures.executing() == []

    def share(
        self, peer: LaneSocket, number: int, size: int = mmap.PAGESIZE, *, writable: bool = True
    ) -> mmap.mmap:
        """Register a region, whose memory is given."""
        fd = os.memfd_create(self.memory_name, os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        memory = mmap.mmap(fd, size)
        header = msgspec.json.encode(lane.Region(number, size, writable))
        data = b"".join(map(bytes, lane.encode(lane.REGION, header, request_id=number)))
        assert peer.send_descriptor(data, fd)
        os.close(fd)
        self.loop.turn()
        (frame,) = self.answers(peer)
        assert (frame.kind, frame.request_id) == (lane.REGION, number)
        return memory

    def release(self, peer: LaneSocket, number: int) -> None:
        """Release a region."""
        peer.send_frame(lane.RELEASE, release_header(number), [], number)
        self.loop.turn()
        (frame,) = self.answers(peer)
        assert (frame.kind, frame.request_id) == (lane.RELEASE, number)

    def mappings(self) -> int:
        """How many mappings of regions there are: the peers' own, and the worker's."""
        return Path("/proc/self/maps").read_text().count(f"memfd:{self.memory_name}")

    def close(self) -> None:
        """End everything."""
        self.loop.stand_by()
        for peer in self.peers:
            peer.close()
        self._listener.close()
        self.loop._epoll.close()
        os.close(self.loop._spare_fd)
        os.close(self.page.fd)
        os.close(self._wake_fd)


def anything(*fds: int) -> bool:
    """Whether there is anything to read."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def release_header(number: int) -> bytes:
    """Name a region that is not used any more."""
    return msgspec.json.encode(lane.RegionRelease(number))


def asking(
    *inputs: TensorHeader, outputs: Sequence[RequestedOutput] = (), request_id: str = ID
) -> bytes:
    """Write the header of a request."""
    return msgspec.json.encode(
        InferRequest("adder", list(inputs), request_id, outputs=list(outputs))
    )


def placed(name: str, array: Array, region: int, offset: int = 0) -> TensorHeader:
    """Say of an input that it is in shared memory."""
    place = SharedMemory(region, array.nbytes, offset)
    return TensorHeader(name, datatype_of(array), list(array.shape), place)


def inline(name: str, array: Array) -> TensorHeader:
    """Say of an input that its frame comes along."""
    return TensorHeader(name, datatype_of(array), list(array.shape))


def response(frame: lane.LaneFrame) -> InferResponse:
    """Read the header of an answer."""
    if frame.kind == lane.ERROR:
        raise AssertionError(decode_error(frame.header))
    assert frame.kind == lane.RESPONSE
    return msgspec.json.decode(frame.header, type=InferResponse)


def error(frame: lane.LaneFrame) -> RequestError:
    """Read the header of a refusal."""
    assert frame.kind == lane.ERROR
    assert not frame.tensors
    return decode_error(frame.header)
