"""A gateway's loop in this process, its clients and workers played by the test; one turn at a time.

>>> loop = GatewayLoop(tmp_path, monkeypatch)
>>> worker = loop.worker()
>>> loop.route("m", [worker])
>>> client = loop.client()
>>> client.send(message(b"SB1I", b'{"model_name":"m","id":"a","inputs":[]}'))
>>> loop.turns()
>>> worker.answer_all()
>>> loop.turns()
>>> client.messages()

Clients and workers take frames apart by themselves, so that what they find is not what the code
under test believes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from superbrain.domain import ctl
from superbrain.domain.records import RecordPolicy
from superbrain.serve.ctl_channel import CtlChannel
from superbrain.serve.front import Front
from superbrain.serve.gateway import Gateway
from superbrain.serve.traffic import Traffic
from superbrain.transport.flight import FlightPage
from superbrain.wire import lane
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import ModelMetadata, encode_error
from tests.support.gateway_ends import COMMAND, GREETING, LONG, MORE, message, ready

_MOST_TURNS = 10_000
_FROM_GATEWAY: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ctl.FromGateway)


class _TurnDone(Exception):
    """The loop came round once."""


def request(
    name: str | bytes = "a", *tensors: bytes, model: str = "m", more: bytes = b""
) -> list[bytes]:
    """Give the frames of a request; `more` stands before the id, with a comma behind it."""
    id = name if isinstance(name, bytes) else msgspec.json.encode(name)
    header = b'{"model_name":"%b",%b"id":%b,"inputs":[]}' % (model.encode(), more, id)
    return [b"SB1I", header, *tensors]


def asked(name: str | bytes = "a", *tensors: bytes, model: str = "m", more: bytes = b"") -> bytes:
    """Give the bytes of such a request."""
    return message(*request(name, *tensors, model=model, more=more))


class ClientEnd:
    """A connected client; it takes only what it is told to."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.taken = b""
        self._frames: list[bytes] = []

    def send(self, data: bytes) -> int:
        """Send what there is room for; give how much that was."""
        with suppress(BlockingIOError, BrokenPipeError):
            return self.socket.send(data)
        return 0

    def take(self) -> bytes:
        """Take the bytes that have come."""
        came = b""
        with suppress(BlockingIOError, ConnectionError):
            while piece := self.socket.recv(1 << 20):
                came += piece
        return came

    def messages(self) -> list[list[bytes]]:
        """Take what has come, apart; commands bear their flags in front."""
        self.taken += self.take()
        found: list[list[bytes]] = []
        rest = self.taken
        while len(rest) >= (start := 9 if rest[:1] and rest[0] & LONG else 2):
            size = int.from_bytes(rest[1:start], "big")
            if len(rest) < start + size:
                break
            flags, content, rest = rest[0], rest[start : start + size], rest[start + size :]
            if flags & COMMAND:
                found.append([b"command", content])
                continue
            self._frames.append(content)
            if not flags & MORE:
                found.append(self._frames)
                self._frames = []
        self.taken = rest
        return found

    def ids(self) -> list[str]:
        """Give the ids of the replies that have come."""
        headers = [behind_verb(frames) for frames in self.messages()]
        return [msgspec.json.decode(header)["id"] for header in headers]

    @property
    def gone(self) -> bool:
        """Whether the gateway has hung up, and nothing is left to take."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()


def behind_verb(frames: list[bytes]) -> bytes:
    """Give the header of a reply."""
    return frames[1 + next(n for n, frame in enumerate(frames) if frame[:3] == b"SB1")]


class WorkerEnd:
    """A worker whose lane has been taken; it answers what it is told to, and nothing by itself.

    Attributes:
        frames: all that have come, in their order.
        waiting: those of them without an answer.
    """

    def __init__(self, path: Path, deployment_id: int = 1, window: int = 4) -> None:
        self.address = ctl.LaneAddress(str(path), 1)
        self.deployment_id = deployment_id
        self.frames: list[lane.LaneFrame] = []
        self.waiting: list[lane.LaneFrame] = []
        self.page = FlightPage()
        self._window = window
        self._decoder = lane.LaneDecoder()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self.socket: socket.socket | None = None

    def greet(self) -> None:
        self.socket = self._listener.accept()[0]
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        hello = lane.Hello("m", "1", self.deployment_id, self._window, lane=1)
        frame = b"".join(map(bytes, lane.encode(lane.HELLO, msgspec.json.encode(hello))))
        socket.send_fds(self.socket, [frame], [self.page.fd])

    @property
    def _open(self) -> socket.socket:
        assert self.socket is not None
        return self.socket

    def take(self) -> list[lane.LaneFrame]:
        """Take the frames that have come."""
        came: list[lane.LaneFrame] = []
        with suppress(BlockingIOError, ConnectionError):
            while received := self._open.recv_into(self._decoder.buffer()):
                came += self._decoder.received(received)
        self.frames += came
        self.waiting += came
        return came

    def answer(
        self,
        frame: lane.LaneFrame,
        tensors: Sequence[bytes] | None = None,
        *,
        kind: int = lane.RESPONSE,
    ) -> bytes:
        """Give the bytes of its answer: the tensors as they came, if none are given."""
        self.waiting = [other for other in self.waiting if other is not frame]
        id = salvaged(frame)
        header = msgspec.json.encode(
            {"model_name": "m", "model_version": "1", "outputs": [], "id": id}
        )
        if kind == lane.ERROR:
            header = encode_error(InvalidArgument("refused"), id)
        given = frame.tensors if tensors is None and kind != lane.ERROR else tensors or ()
        parts = lane.encode(kind, header, given, request_id=frame.request_id)
        return b"".join(map(bytes, parts))

    def send(self, data: bytes) -> None:
        """Send all of it, which has to have room."""
        assert self._open.send(data) == len(data)

    def answer_all(self, tensors: Sequence[bytes] | None = None) -> int:
        """Answer all that wait, in one write; give how many that were."""
        self.take()
        waiting = list(self.waiting)
        if waiting:
            self.send(b"".join(self.answer(frame, tensors) for frame in waiting))
        return len(waiting)

    def ids(self) -> list[str]:
        """Take what has come; give the ids of all that wait."""
        self.take()
        return [salvaged(frame) for frame in self.waiting]

    def end(self, *, goodbye: bool = False) -> None:
        """End the lane: retired, or dead."""
        if goodbye:
            self.send(b"".join(map(bytes, lane.encode(lane.GOODBYE))))
        self._open.close()

    def close(self) -> None:
        self._listener.close()
        os.close(self.page.fd)
        if self.socket is not None:
            self.socket.close()


def salvaged(frame: lane.LaneFrame) -> str:
    """Give the id of a request as a worker reads it."""
    found = msgspec.json.decode(frame.header).get("id", "")
    return str(found)


class GatewayLoop:
    """A gateway; `usual` counts what it has passed on without Python: requests, then answers."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, policy: RecordPolicy | None = None
    ) -> None:
        self.path = str(folder / "infer.sock")
        self._folder = folder
        self._names = count()
        self._daemon, theirs = socket.socketpair()
        self._daemon.setblocking(False)
        self._heard = ctl.MessageBuffer(_FROM_GATEWAY)
        self.said: list[ctl.Message] = []
        self.epoll = select.epoll()
        self.front = Front(f"ipc://{self.path}", self.epoll)
        self.channel = CtlChannel(theirs, msgspec.msgpack.Decoder(ctl.ToGateway))
        self._theirs = theirs
        self.gateway = Gateway(self.front, self.channel, self.epoll, policy or RecordPolicy())
        self.traffic = self.gateway._traffic
        self._clients: list[ClientEnd] = []
        self._workers: list[WorkerEnd] = []
        self._by_python = [0, 0]
        self._step_by_step(patch)
        self._count(patch)
        self.order(ctl.Open())

    def _step_by_step(self, patch: pytest.MonkeyPatch) -> None:
        """Never sleep, and leave the loop when it has come round."""
        wait, waits = self.gateway._wait, count()

        def once() -> Sequence[tuple[int, int]]:
            if next(waits) % 2:
                raise _TurnDone
            return wait()

        patch.setattr(self.gateway, "_sleep_s", lambda: 0.0)
        patch.setattr(self.gateway, "_wait", once)

    def _count(self, patch: pytest.MonkeyPatch) -> None:
        admit, pass_on, fail = Traffic.submit, Traffic._pass_on, Traffic.fail

        def submit(traffic: Traffic, *args: Any) -> None:  # noqa: ANN401
            before = sum(route.requests for route in traffic.directory)
            admit(traffic, *args)
            after = sum(route.requests for route in traffic.directory)
            self._by_python[0] += after - before

        def counted(traffic: Traffic, *args: Any) -> None:  # noqa: ANN401
            self._by_python[1] += 1
            pass_on(traffic, *args)

        def failed(traffic: Traffic, *args: Any) -> None:  # noqa: ANN401
            self._by_python[1] += 1
            fail(traffic, *args)

        patch.setattr(Traffic, "submit", submit)
        patch.setattr(Traffic, "fail", failed)
        patch.setattr(Traffic, "_pass_on", counted)

    @property
    def usual(self) -> tuple[int, int]:
        routes = list(self.traffic.directory)
        requests = sum(route.requests for route in routes)
        answers = sum(route.answered + route.errors for route in routes)
        return requests - self._by_python[0], answers - self._by_python[1]

    def turn(self) -> None:
        """Let the loop come round once; it does not wait."""
        with suppress(_TurnDone):
            self.gateway.run()

    def turns(self) -> None:
        """Let the loop come round as long as there is anything to do."""
        for _ in range(_MOST_TURNS):
            if not self.epoll.poll(0):
                return
            self.turn()
        raise AssertionError("expected what there is to do to come to an end")

    def order(self, message: ctl.Message) -> None:
        self._daemon.send(ctl.encode_message(message))
        self.turns()

    def hear(self) -> list[ctl.Message]:
        """Give what the gateway has said to the daemon since the last time."""
        with suppress(BlockingIOError):
            self.said = list(self._heard.feed(self._daemon.recv(1 << 20)))
            return self.said
        return []

    def figures(self) -> ctl.GatewayPong:
        self.hear()
        self.order(ctl.Ping())
        (pong,) = self.hear()
        assert isinstance(pong, ctl.GatewayPong)
        return pong

    def worker(self, window: int = 4, deployment_id: int = 1) -> WorkerEnd:
        """A worker that has not been routed to."""
        path = self._folder / f"lane{next(self._names)}"
        self._workers.append(WorkerEnd(path, deployment_id, window))
        return self._workers[-1]

    def route(
        self,
        model: str,
        workers: Sequence[WorkerEnd],
        *,
        version: str = "1",
        queue_size: int = 1000,
        reason: str = "",
        joining: Sequence[WorkerEnd] | None = None,
    ) -> None:
        """Let the workers answer for the model; those who join (all of them) greet."""
        deployment_id = workers[0].deployment_id if workers else 0
        lanes = [worker.address for worker in workers]
        metadata = ModelMetadata(model, [version], "superbrain", [], [])
        timeout_ms = 600_000
        self.order(
            ctl.Route(
                model, version, deployment_id, lanes, metadata, queue_size, timeout_ms, reason
            )
        )
        for worker in workers if joining is None else joining:
            worker.greet()
        self.turns()

    def client(self) -> ClientEnd:
        """A client that has shaken hands."""
        client = self.stranger()
        client.send(GREETING + ready(b"DEALER"))
        self.turns()
        greeting = client.take()
        assert greeting[: len(GREETING)] == GREETING
        assert greeting[len(GREETING)] == COMMAND
        return client

    def stranger(self) -> ClientEnd:
        """A client that has not said a word."""
        self._clients.append(ClientEnd(self.path))
        self.turns()
        return self._clients[-1]

    def learn(self, client: ClientEnd, worker: WorkerEnd, frames: Sequence[bytes]) -> None:
        """Let requests like this one be usual."""
        client.send(message(*frames))
        self.turns()
        assert worker.answer_all()
        self.turns()
        client.send(message(*frames))  # what the worker's answer has unsettled is learned again
        self.turns()
        assert worker.answer_all()
        self.turns()
        client.messages()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for worker in self._workers:
            worker.close()
        for peer in list(self.front.peers.values()):
            peer.close()
        for slot in list(self.traffic._lanes.values()):
            slot.close()
        os.close(self.front._spare_fd)
        self.front._listener.close()
        self._daemon.close()
        self._theirs.close()
        self.epoll.close()


def raw_head(flags: int, size: int) -> bytes:
    """Give the head of a frame with eight bytes of length, however short it is."""
    return struct.pack(">BQ", flags | LONG, size)
