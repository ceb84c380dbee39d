"""Random days of a gateway: what clients send, and how workers answer. The same for both twins.

A script is made from a seed alone. `play` carries it out on a `GatewayLoop` and gives all that the
ends of it have seen: bytes of each client, frames of each worker, and the gateway's figures.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from superbrain.wire import lane
from superbrain.wire.messages import RESULT
from tests.support.gateway_ends import MORE, command, message
from tests.support.gateway_loop import ClientEnd, GatewayLoop, WorkerEnd, raw_head, request

CLIENTS, STEPS = 4, 60
PLAIN = [b'"a"', b'"b-1"', b'"0123456789"', b'"%s"' % (b"x" * 300), b'"\xc3\xa9\xe2\x82\xac"']
ODD = [
    b'""',
    b'"q\\""',
    b'"\\u00e9"',
    b'"tab\\t"',
    b'"\x01"',
    b'"\x1f\x7f"',
    b'"\x7f"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b'"\xf0\x9f\x92\xa9"',
    b'"\x00"',
    b"null",
    b"7",
    b'"%s"' % (b"y" * 5000),
    b'"\\ud83d"',
    b'"id"',
    b'"a" ',
]
MORE_FIELDS = [
    b'"model_version":"1",',
    b'"model_version":"9",',
    b'"parameters":{"timeout_ms":3600000},',
    b'"parameters":{"timeout_ms":-1},',
    b'"parameters":{"timeout_ms":86400001},',
    b'"parameters":{"priority":4},',
    b'"parameters":{"priority":-7},',
    b'"parameters":{"priority":400},',
    b'"parameters":{"priority":1,"timeout_ms":86400000},',
    b'"parameters":{"suspect":true},',
    b'"parameters":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},',
    b'"parameters":{"id":"nested"},',
    b'"outputs":[{"name":"id"}],',
    b'"outputs":[{"name":"\\"id\\":\\"x\\""}],',
    b'"surprise":{"id":"nested"},',
    b'"id":"twice",',
    b'"\\u0069d":"escaped",',
]
HEADERS = [
    b"{}",
    b"",
    b"{",
    b"\xff",
    b'{"model_name":"m"}',
    b'{"id":"a","model_name":"m","inputs":[]}',
    b'{"model_name":"m","inputs":[],"id" :"a"}',
    b'{"model_name":"m","inputs":[],"id": "a"}',
    b'{"model_name":"m","inputs":[],"id":  "a"}',
    b'{"model_name":"m","inputs":[],"id":"a"} ',
    b'{"model_name":"m","inputs":[],"id":"a"}x',
    b'{"model_name":"m","inputs":[{"id":"a"}]}',
    b'{"model_name":"nobody","inputs":[],"id":"a"}',
    b'{"model_name":"m","inputs":[],"id":"a"',
    b'{"model_name":"m","inputs":[],"id":"',
    b'{"model_name":"m","inputs":[],"id":',
    b'{"model_name":"m","inputs":[],"id"',
    b'{"model_name":"m","inputs":[],"id":"a',
]
QUERIES = [[b"SB1H", b'{"id":"h"}'], [b"SB1L", b"{}"], [b"SB1?", b"{}"], [b"SB1I"], [b"HTTP", b""]]
Draw = random.Random


@dataclass
class Seen:
    """What one day has left: equal for both twins."""

    clients: dict[int, bytes] = field(default_factory=dict)
    workers: list[list[tuple[Any, ...]]] = field(default_factory=list)
    figures: list[Any] = field(default_factory=list)


def tensor(draw: Draw) -> bytes:
    """Mostly small."""
    return draw.randbytes(draw.choice([0, 1, 4, 64, 255, 256, 1000, 3000, 9000]))


def frames(draw: Draw) -> list[bytes]:
    """Give a message's frames."""
    kind = draw.random()
    if kind < 0.55:
        found = request(draw.choice(PLAIN), tensor(draw), model=draw.choice("mmn"))
    elif kind < 0.65:
        found = request(draw.choice(ODD), tensor(draw))
    elif kind < 0.75:
        found = request(draw.choice(PLAIN), tensor(draw), more=draw.choice(MORE_FIELDS))
    elif kind < 0.83:
        found = [b"SB1I", draw.choice(HEADERS), tensor(draw)]
    elif kind < 0.87:
        found = list(draw.choice(QUERIES))
    elif kind < 0.93:
        found = request(draw.choice(PLAIN), *[tensor(draw) for _ in range(draw.randrange(5))])
    elif kind < 0.96:
        found = request(draw.choice(PLAIN), *[b"x"] * draw.choice([29, 30, 31, 32, 40, 65, 100]))
    else:
        found = request(draw.choice(PLAIN), draw.randbytes(100_000))
    envelope = draw.random()
    if envelope < 0.3:
        return [b"", *found]
    return [b"hop", b"", *found] if envelope < 0.35 else found


def written(draw: Draw) -> bytes:
    """Give a message as some library might write it, perhaps behind a command."""
    parts = frames(draw)
    data = message(*parts)
    if draw.random() < 0.1:
        heads = [raw_head(MORE if part is not parts[-1] else 0, len(part)) for part in parts]
        data = b"".join(head + part for head, part in zip(heads, parts, strict=True))
    if draw.random() < 0.05:
        data = command(b"PING", b"\0\0context") + data
    return data


def cut(draw: Draw, data: bytes) -> list[bytes]:
    """Cut what is sent; mostly it comes in one piece."""
    if draw.random() < 0.75:
        return [data]
    places = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randrange(1, 4)))
    pieces = zip([0, *places], [*places, len(data)], strict=True)
    return [data[first:end] for first, end in pieces]


class Day:
    """A script under way."""

    def __init__(self, loop: GatewayLoop, seed: int) -> None:
        self.loop = loop
        self.seen = Seen()
        self._draw = Draw(seed)
        self._clients: list[tuple[int, ClientEnd]] = []
        self._workers: list[WorkerEnd] = []
        self._began_ns = time.monotonic_ns()
        self._room = 20 if seed % 2 else 2  # in every other day hardly anything ever waits
        for name, windows in (("m", (2 * self._room,) * 2), ("n", (self._room,))):
            workers = [loop.worker(window) for window in windows]
            self._workers += workers
            loop.route(name, workers, queue_size=20)
        self._at_work = list(self._workers)
        for _ in range(CLIENTS):
            self._come()

    def _come(self) -> None:
        number = len(self.seen.clients)
        self.seen.clients[number] = b""
        self._clients.append((number, self.loop.client()))

    def play(self) -> Seen:
        """Give all that was seen, when everything has been answered."""
        doings: list[Callable[[], None]] = [self._one, self._several, self._many]
        doings += [self._answer, self._answer, self._together, self._go, self._renew]
        for _ in range(STEPS):
            (doing,) = self._draw.choices(doings, [5, 3, 1, 4, 3, 3, 0.3, 0.3])
            doing()
            self.loop.turns()
            if self._room > self._draw.randrange(40):
                self._settle()
        self._settle()
        self._take()
        self.seen.workers = [self._frames(worker) for worker in self._workers]
        self._figure()
        return self.seen

    def _send(self, client: ClientEnd, data: bytes) -> None:
        while data:
            data = data[client.send(data) :]
            self.loop.turns()

    def _one(self) -> None:
        _, client = self._draw.choice(self._clients)
        for piece in cut(self._draw, written(self._draw)):
            self._send(client, piece)

    def _several(self) -> None:
        _, client = self._draw.choice(self._clients)
        messages = [written(self._draw) for _ in range(self._draw.randrange(2, 9))]
        for piece in cut(self._draw, b"".join(messages)):
            self._send(client, piece)

    def _many(self) -> None:
        _, client = self._draw.choice(self._clients)
        self._send(client, b"".join(message(*request(str(n))) for n in range(200)))

    def _together(self) -> None:
        """Let all ends have news in the same turn."""
        for worker in self._at_work:
            if self._draw.random() < 0.5 and worker.socket is not None:
                self._some(worker)
        for _, client in self._clients:
            if self._draw.random() < 0.7:
                client.send(message(*request(self._draw.choice(PLAIN), tensor(self._draw))))

    def _answer(self) -> None:
        self._some(self._draw.choice(self._at_work))

    def _some(self, worker: WorkerEnd) -> None:
        worker.take()
        draw = self._draw
        draw.shuffle(worker.waiting)
        for frame in worker.waiting[: draw.randrange(1, 5)]:
            how = draw.random()
            if how < 0.7:
                data = worker.answer(frame)
            elif how < 0.8:
                data = worker.answer(frame, kind=lane.ERROR)
            else:
                data = worker.answer(frame, draw.choice([[], [b""], [b"z"] * 40, [bytes(9000)]]))
            worker.send(data + (data if draw.random() < 0.05 else b""))

    def _go(self) -> None:
        """One client goes, perhaps with requests under way; another comes."""
        place = self._draw.randrange(len(self._clients))
        number, client = self._clients.pop(place)
        self.seen.clients[number] += client.take()
        client.close()
        self._come()

    def _renew(self) -> None:
        """The worker of `n` ends; another takes its place."""
        old = self._at_work.pop()
        old.take()
        old.end(goodbye=self._draw.random() < 0.5)
        self.loop.turns()
        self._at_work.append(self.loop.worker(self._room))
        self._workers += self._at_work[-1:]
        self.loop.route("n", self._at_work[-1:], queue_size=20)

    def _settle(self) -> None:
        while sum(worker.answer_all() for worker in self._at_work):
            self.loop.turns()

    def _take(self) -> None:
        for number, client in self._clients:
            self.seen.clients[number] += client.take()

    def _frames(self, worker: WorkerEnd) -> list[tuple[Any, ...]]:
        # Numbers may have gaps, and deadlines are counted from an arrival.
        return [
            (
                frame.kind,
                frame.priority,
                round((frame.deadline_ns - self._began_ns) / 1e11),
                bytes(frame.header),
                [bytes(tensor) for tensor in frame.tensors],
            )
            for frame in worker.frames
        ]

    def _figure(self) -> None:
        pong = self.loop.figures()
        self.seen.figures += [pong.malformed, pong.dropped]
        self.seen.figures += [
            (
                model.model,
                model.requests,
                model.answered,
                model.errors,
                model.waiting,
                model.outstanding,
                model.redispatched,
                sum(model.latency.counts),
            )
            for model in pong.models
        ]


def answers_in(taken: bytes) -> int:
    """Count the results among the bytes of a client."""
    return taken.count(b"\1\4SB1" + RESULT)
