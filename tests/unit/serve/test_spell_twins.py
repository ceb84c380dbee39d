"""Whatever comes over several lanes: both twins answer alike, in the same order, and count alike.

What comes is drawn at random from what is usual, unusual, late, wrong, in parts and no frame at
all. Times decide nothing: what depends on them lasts for ever here, or no time at all.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from superbrain.serve import executor
from superbrain.transport import compiled
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.datatypes import Array
from superbrain.wire.errors import InvalidArgument
from tests.support.twins import MISSING
from tests.support.worker_loop import FAR_NS, Loop, add_one, asking, inline

LANES, ROUNDS, MOST_OF_A_LANE = 4, 12, 5
BREAK, REFUSE, EXIT, OTHER = -2.0, -3.0, -4.0, -5.0
WIDTHS = (2, 3)


class Sent(NamedTuple):
    """What a peer sends: a request as its arguments, or bytes."""

    kind: int
    header: bytes
    tensors: Sequence[bytes]
    priority: int
    late: bool | None  # None for no deadline


class Burst(NamedTuple):
    """What comes on one lane before the loop has its turn.

    `held_back`: so much of the last frame comes with the next burst. `ends`: with what is no
    frame (True), or just so (False).
    """

    sent: list[Sent]
    held_back: float
    ends: bool | None


def does(asked: dict[str, Array]) -> dict[str, Array]:
    match float(asked["x"][0]):
        case -2.0:
            raise ValueError(f"broken at {float(asked['x'][1])}")
        case -3.0:
            raise InvalidArgument("refused")
        case -4.0:
            raise SystemExit(3)
        case -5.0:
            return {"y": np.full(40_000, asked["x"][1], np.float32), "z": np.zeros(1)}
    return add_one(asked)


# --- what is drawn ------------------------------------------------------------------------------


def draw_request(draw: random.Random, deadlines: Sequence[bool | None]) -> Sent:
    width = draw.choice(WIDTHS)
    kind = draw.choice([lane.REQUEST] * 3 + [lane.FORWARD] * 3 + [lane.ALONE])
    request_id = (
        "same" if kind == lane.REQUEST else draw.choice(["", "a", "ü", 'b"', f"{draw.random()}"])
    )
    header = asking(inline("x", np.zeros(width, np.float32)), request_id=request_id)
    first = draw.choice([1.0] * 12 + [BREAK, REFUSE, EXIT, OTHER])
    tensors = [np.array([first, draw.randrange(100), 7][:width], np.float32).tobytes()]
    if draw.random() < 0.1:
        header = draw.choice([header.replace(b"adder", b"other"), b"{", header[:-1] + b" }"])
    if draw.random() < 0.05:
        tensors = draw.choice([[], tensors * 2, [tensors[0][:4]]])
    return Sent(kind, header, tensors, draw.choice([0, 0, 0, 3, 200]), draw.choice(deadlines))


def draw_burst(draw: random.Random) -> Burst:
    alike = draw.random() < 0.6
    deadlines = [False] if alike else [False, None, None, True]
    sent = [draw_request(draw, deadlines) for _ in range(draw.randrange(MOST_OF_A_LANE + 1))]
    if draw.random() < 0.6:
        sent = [one._replace(priority=0) for one in sent]
    held_back = draw.random() if sent and draw.random() < 0.2 else 0.0
    ends = draw.random() < 0.5 if draw.random() < 0.03 else None
    return Burst(sent, held_back, ends)


def draw_script(seed: int) -> list[list[Burst]]:
    draw = random.Random(seed)
    return [[draw_burst(draw) for _ in range(LANES)] for _ in range(ROUNDS)]


# --- what is played -----------------------------------------------------------------------------


class Peer:
    """One who sends bursts, as long as his lane is open, and keeps what he is told."""

    def __init__(self, loop: Loop) -> None:
        self.socket: LaneSocket = loop.connect()
        self.told: list[tuple[Any, ...]] = []
        self._loop = loop
        self._kept = b""
        self._number = 0
        self._open = True

    def play(self, burst: Burst) -> None:
        if not self._open:
            return
        frames = [self._frame(sent) for sent in burst.sent]
        data = self._kept + b"".join(frames)
        cut = len(data) - int(burst.held_back * len(frames[-1])) if frames else len(data)
        self._kept = data[cut:]
        data = data[:cut]
        if burst.ends is not None:
            self._open = False
            data += b"\xff" * 64 if burst.ends else b""
        if data:
            self.socket.send((data,))
        if burst.ends is False:
            self.socket.close()

    def _frame(self, sent: Sent) -> bytes:
        self._number += 1
        deadline_ns = {None: 0, True: 1, False: time.monotonic_ns() + FAR_NS}[sent.late]
        buffers = lane.encode(
            sent.kind,
            sent.header,
            sent.tensors,
            request_id=self._number,
            deadline_ns=deadline_ns,
            priority=sent.priority,
        )
        return b"".join(map(bytes, buffers))

    def listen(self) -> None:
        while not self.socket.ended:
            frames = self.socket.receive()
            if not frames:
                break
            self.told += [
                (one.kind, one.request_id, bytes(one.header), list(map(bytes, one.tensors)))
                for one in frames
            ]


def figures(loop: Loop) -> dict[str, Any]:
    told = loop.figures.pong(0)
    totals = loop.figures.tally.totals()
    return {
        "requests": told.requests,
        "direct": (told.direct_requests, told.direct_errors),
        "ended": (told.ok, told.caller_errors, told.internal_errors, told.expired, told.refused),
        "runs": (told.runs, told.batches),
        "last error": told.last_error,
        "durations": (told.latency.count, len(totals.latest_ns)),
        "stages": {name: stage.count for name, stage in told.stages.items()},
        "asked": loop.model.asked,
    }


def without_wait(frame: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave out how long a late request has waited."""
    kind, number, header, tensors = frame
    if b"DEADLINE_EXCEEDED" in header:
        header = b"late"
    return kind, number, header, tensors


class Played(NamedTuple):
    told: list[list[tuple[Any, ...]]]
    open: list[bool]
    figures: dict[str, Any]
    at_once: int


def play(path: Path, patch: pytest.MonkeyPatch, script: list[list[Burst]]) -> Played:
    loop = Loop(path, patch)
    loop.model.queue_size = LANES * (MOST_OF_A_LANE + 1)
    loop.model.does = does
    loop.serve()
    peers = [Peer(loop) for _ in range(LANES)]
    for bursts in script:
        for peer, burst in zip(peers, bursts, strict=True):
            peer.play(burst)
        while True:
            before = [len(peer.told) for peer in peers]
            loop.settle()
            for peer in peers:
                peer.listen()
            if before == [len(peer.told) for peer in peers]:
                break
        loop.assert_idle()
    found = Played(
        [[without_wait(frame) for frame in peer.told] for peer in peers],
        [not peer.socket.ended for peer in peers],
        figures(loop),
        loop.at_once,
    )
    assert len(loop.loop._lanes) == sum(found.open)
    assert set(loop.loop._usual) <= set(loop.loop._lanes)
    loop.close()
    return found


@pytest.mark.parametrize("together_ns", [0, FAR_NS])
@pytest.mark.parametrize("quick_ns", [0, FAR_NS])
@pytest.mark.parametrize("seed", range(10))
def test_both_twins_answer_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, quick_ns: int, together_ns: int
) -> None:
    if compiled.loop() is None:
        pytest.skip(MISSING)
    monkeypatch.setattr(executor, "_QUICK_NS", quick_ns)
    monkeypatch.setattr(executor, "TOGETHER_NS", together_ns)
    script = draw_script(seed)
    fast = play(tmp_path / "compiled", monkeypatch, script)
    monkeypatch.setattr(compiled, "loop", lambda: None)
    slow = play(tmp_path / "python", monkeypatch, script)
    assert slow.at_once == 0
    assert fast.at_once > (0 if quick_ns else -1)
    assert fast.told == slow.told
    assert fast.open == slow.open
    assert fast.figures == slow.figures
