"""Tensors in shared memory on a real worker's lane: right, hostile, and of peers that die."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import pytest

from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from superbrain.wire.messages import (
    INFER,
    PROTOCOL,
    InferRequest,
    InferResponse,
    RequestedOutput,
    SharedMemory,
    TensorHeader,
    decode_error,
)
from tests.support.fake_worker import SLOW
from tests.support.processes import ROOT, Stage, WorkerChild, until

pytestmark = pytest.mark.integration
PATIENCE_S = 20.0
SIZE = 4 * mmap.PAGESIZE
HALF = SIZE // 2
HOLDER = """
import os, socket, sys
from superbrain.wire import lane
from tests.integration.test_shared_memory import Peer, sealed
peer = Peer(sys.argv[1])
for number in range(8):
    assert peer.register(number, sealed()) == "OK"
print("registered", flush=True)
sys.stdin.read()
"""


def sealed(size: int = SIZE) -> int:
    fd = os.memfd_create("superbrain-test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


class Peer:
    """A bare peer on a lane that owns one region, number 1, when it has called `share`."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path)
        self._decoder = lane.LaneDecoder()
        self._frames: list[lane.LaneFrame] = []
        assert self.receive().kind == lane.HELLO

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self) -> lane.LaneFrame:
        while not self._frames:
            count = self.socket.recv_into(self._decoder.buffer())
            if not count:
                raise EOFError
            self._frames += self._decoder.received(count)
        return self._frames.pop(0)

    def send(self, kind: int, header: Any, *fds: int) -> None:  # noqa: ANN401 - any header
        data = b"".join(map(bytes, lane.encode(kind, msgspec.json.encode(header), request_id=7)))
        socket.send_fds(self.socket, [data], fds)

    def verdict(self) -> str:
        """OK, or the code of the error that came."""
        frame = self.receive()
        assert frame.request_id == 7
        return decode_error(frame.header).code if frame.kind == lane.ERROR else "OK"

    def register(self, number: int, *fds: int, size: int = SIZE) -> str:
        self.send(lane.REGION, lane.Region(number, size, writable=True), *fds)
        for fd in fds:
            os.close(fd)
        return self.verdict()

    def share(self) -> mmap.mmap:
        fd = sealed()
        memory = mmap.mmap(fd, SIZE)
        assert self.register(1, fd) == "OK"
        return memory

    def ask(self, place: SharedMemory, count: int, room: SharedMemory | None = None) -> None:
        x = TensorHeader("x", "FP32", [count], place)
        self.send(lane.REQUEST, InferRequest("adder", [x], outputs=[RequestedOutput("y", room)]))


def view(memory: mmap.mmap) -> Array:
    return np.frombuffer(memory, np.float32)


def mapped(worker: WorkerChild) -> tuple[int, int]:
    """How many regions the worker maps, and how many descriptors of them it holds."""
    process = Path(f"/proc/{worker.process.pid}")
    targets = []
    for fd in (process / "fd").iterdir():
        try:
            targets.append(str(fd.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    maps = (process / "maps").read_text()
    name = "memfd:superbrain-test"
    return maps.count(name), sum(name in target for target in targets)


def test_request_and_answer_stay_in_shared_memory(stage: Stage) -> None:
    with Peer(stage.serving().address.path) as peer:
        memory = peer.share()
        for number in range(3):
            view(memory)[:3] = number
            peer.ask(SharedMemory(1, 12), 3, SharedMemory(1, HALF, HALF))
            frame = peer.receive()
            answer = msgspec.json.decode(frame.header, type=InferResponse)
            assert not frame.tensors
            assert answer.outputs == [TensorHeader("y", "FP32", [3], SharedMemory(1, 12, HALF))]
            assert view(memory)[HALF // 4 :][:4].tolist() == [number + 1] * 3 + [0]


def test_an_output_without_room_comes_in_a_frame(stage: Stage) -> None:
    with Peer(stage.serving().address.path) as peer:
        memory = peer.share()
        view(memory)[:2] = 5
        peer.ask(SharedMemory(1, 8), 2)
        assert np.frombuffer(peer.receive().tensors[0], np.float32).tolist() == [6, 6]


@pytest.mark.parametrize(
    ("place", "room"),
    [
        (SharedMemory(2, 12), None),
        (SharedMemory(1, 12, SIZE), None),
        (SharedMemory(1, 12, (1 << 63) - 12), None),
        (SharedMemory(1, 12, 2), None),
        (SharedMemory(1, 16), None),
        (SharedMemory(1, 12), SharedMemory(1, 8, HALF)),
        (SharedMemory(1, 12), SharedMemory(3, 12)),
    ],
)
def test_a_wrong_place_is_refused_and_the_lane_goes_on(
    stage: Stage, place: SharedMemory, room: SharedMemory | None
) -> None:
    with Peer(stage.serving().address.path) as peer:
        peer.share()
        peer.ask(place, 3, room)
        assert peer.verdict() == "INVALID_ARGUMENT"
        peer.ask(SharedMemory(1, 12), 3)
        assert peer.verdict() == "OK"


def test_a_released_region_is_unknown_and_unmapped(stage: Stage) -> None:
    worker = stage.serving()
    with Peer(worker.address.path) as peer:
        peer.share()
        peer.send(lane.RELEASE, lane.RegionRelease(1))
        assert peer.verdict() == "OK"
        assert mapped(worker) == (0, 0)
        peer.ask(SharedMemory(1, 12), 3)
        assert peer.verdict() == "INVALID_ARGUMENT"


def test_what_is_refused_is_neither_mapped_nor_held(stage: Stage) -> None:
    worker = stage.serving()
    with Peer(worker.address.path) as peer:
        unsealed = os.memfd_create("superbrain-test", os.MFD_ALLOW_SEALING)
        os.ftruncate(unsealed, SIZE)
        assert peer.register(1, unsealed) == "INVALID_ARGUMENT"
        assert peer.register(1, sealed(), size=SIZE + 1) == "INVALID_ARGUMENT"
        assert peer.register(1) == "INVALID_ARGUMENT"
        assert mapped(worker) == (0, 0)


def test_descriptors_nobody_asked_for_are_closed(stage: Stage) -> None:
    worker = stage.serving()
    with Peer(worker.address.path) as peer:
        peer.share()
        fds = [sealed() for _ in range(3)]
        x = TensorHeader("x", "FP32", [3], SharedMemory(1, 12))
        peer.send(lane.REQUEST, InferRequest("adder", [x]), *fds)
        assert peer.verdict() == "OK"
        assert mapped(worker) == (1, 1)


@pytest.mark.parametrize("count", [5, 200])
def test_a_flood_of_descriptors_ends_its_lane_and_no_other(stage: Stage, count: int) -> None:
    worker = stage.serving()
    with Peer(worker.address.path) as good, Peer(worker.address.path) as bad:
        good.share()
        fds = [sealed()] * count
        socket.send_fds(bad.socket, [b"\x07"], fds)
        with pytest.raises((EOFError, ConnectionError)):
            bad.receive()
        until(lambda: mapped(worker) == (1, 1), "the flood's descriptors closed")
        good.ask(SharedMemory(1, 12), 3)
        assert good.verdict() == "OK"


def test_a_peer_that_writes_and_truncates_during_execution_harms_nobody(stage: Stage) -> None:
    worker = stage.serving("slow_ms=100")
    with Peer(worker.address.path) as peer:
        fd = sealed()
        copy = os.dup(fd)
        memory = mmap.mmap(copy, SIZE)
        assert peer.register(1, fd) == "OK"
        view(memory)[0] = SLOW
        peer.ask(SharedMemory(1, SIZE), SIZE // 4)
        until(worker.at_work, "the request executing")
        with pytest.raises(PermissionError):
            os.ftruncate(copy, 0)
        memory[:] = os.urandom(SIZE)
        os.close(copy)
        assert peer.verdict() == "OK"
    with stage.client() as client:
        assert client.ask("adder", [1]).outputs["y"].tolist() == [2]


def test_through_zeromq_shared_memory_is_refused_in_words(stage: Stage) -> None:
    stage.serving()
    request = InferRequest("adder", [TensorHeader("x", "FP32", [3], SharedMemory(1, 12))])
    with stage.client() as client:
        client.send_raw([PROTOCOL + INFER, msgspec.json.encode(request)])
        error = client.receive().error
    assert error is not None
    assert error.code == "INVALID_ARGUMENT"
    assert "Shared memory is for lanes" in error.mend


def test_memory_is_freed_when_the_peer_is_killed(stage: Stage) -> None:
    worker = stage.serving()
    command = [sys.executable, "-c", HOLDER, worker.address.path]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"registered\n"
        assert mapped(worker) == (8, 8)
        holder.send_signal(signal.SIGKILL)
    until(lambda: mapped(worker) == (0, 0), "the dead peer's memory unmapped")


def test_the_example_in_the_document_works_as_printed(stage: Stage) -> None:
    text = (ROOT / "docs/protocol.md").read_text().split("### Shared memory")[1]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/protocol.md", "exec"), names)
    path = stage.serving().address.path
    x = np.arange(3, dtype=np.float32)
    answer = names["infer_shared"](path, "adder", "x", "FP32", [3], x.tobytes(), "y", 64)
    assert np.frombuffer(answer, np.float32).tolist() == [1, 2, 3]
