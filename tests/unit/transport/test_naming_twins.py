"""Ids are taken out of what the gateway forwards, and put into answers, by either twin alike.

The compiled one shows what it does by the answers of a spell: it finds how a request was answered
by its header without the id, and answers with the id put in.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from superbrain.serve.figures import WorkerFigures
from superbrain.serve.stage_clock import StageClock
from superbrain.transport import compiled
from superbrain.transport.flight import FlightPage
from superbrain.transport.frame_reader import frame_reader
from superbrain.transport.lane_socket import LaneSocket
from superbrain.transport.packing import packing_of
from superbrain.wire import lane
from superbrain.wire.naming import with_id, without_id
from tests.support.twins import MISSING

X = np.zeros(1, np.float32)
FAR_NS = 60_000_000_000
LIMITS = 0, 0, 64, FAR_NS, FAR_NS, 8, 0
BARE = b'{"model_name":"m","id":""}'
LONGEST_KEPT = 4096

PIECES = st.sampled_from(
    [b'"id"', b"id", b'"', b":", b" ", b"\\", b"{", b"}", b",", b'"id":"', b'"id": "', b'":"', b"a"]
)
PATCHED = st.lists(PIECES | st.binary(max_size=4), max_size=12).map(b"".join)
WRITTEN = st.dictionaries(st.sampled_from(["id", "name", "inputs", "x"]), st.text(max_size=8)).map(
    lambda text: json.dumps(text, ensure_ascii=False).encode()
)


class Desk:
    """An express, and a lane on which it is asked by one frame at a time."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401
        near, far = socket.socketpair()
        self.peer = LaneSocket(near)
        self.far = far
        self.far.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(far.fileno(), select.EPOLLIN)
        self.page = FlightPage()
        self.express = module.Express(
            self.page.page, WorkerFigures(), StageClock(), lambda arrays: arrays
        )
        self.reader: Any = frame_reader(far, [])
        self.packing = packing_of({"x": X})

    def spell(self, kind: int, header: bytes, known: bytes, answer: bytes) -> Any:  # noqa: ANN401
        self.peer.send_frame(kind, header, [X.tobytes()], 3)
        fd = self.far.fileno()
        forms = {known: (self.packing, self.packing, answer, None, None, None)}
        return self.express.spell(self.epoll.fileno(), {fd: (self.reader, 1, {})}, forms, LIMITS)

    def answered(self, header: bytes, answer: bytes = BARE, kind: int = lane.FORWARD) -> bytes:
        """Give the header of the answer, for a request that is known without its id."""
        executed, came, ready, found, unsent, _ = self.spell(
            kind, header, without_id(header)[0] if kind == lane.FORWARD else header, answer
        )
        assert (executed, came, ready, found, unsent) == (1, True, [], None, [])
        (frame,) = self.peer.receive()
        assert (frame.kind, frame.request_id) == (lane.RESPONSE, 3)
        return bytes(frame.header)

    def close(self) -> None:
        self.epoll.close()
        self.peer.close()
        self.far.close()


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    module = compiled.loop()
    if module is None:
        pytest.skip(MISSING)
    made = Desk(module)
    yield made
    made.close()


@given(header=PATCHED | WRITTEN | st.binary(max_size=40))
@example(b"")
@example(b'"id"')
@example(b'{"id":"a"}')
@example(b'{"id": "a"}')
@example(b'{"id":  "a"}')
@example(b'{"id" :"a"}')
@example(b'{"id":""}')
@example(b'{"id":"')
@example(b'{"id":"a')
@example(b'{"id":"a\\"b"}')
@example(b'{"id":"a\\u00e9"}')
@example('{"id":"ü"}'.encode())
@example(b'{"id":"a","id":"b"}')
@example(b'{"id":"a","parameters":{"id":7}}')
@example(b'{"id":"id"}')
@example(b'{"id":"a"}"id"')
@example(b'{"id":7,"name":"id"}')
@example(b'"id":"a\0b"')
@example(b'"id":"a\nb"')
def test_the_same_id_is_found_and_put_into_the_answer(desk: Desk, header: bytes) -> None:
    assert desk.answered(header) == with_id(BARE, without_id(header)[1])


@given(header=PATCHED | WRITTEN)
def test_on_a_callers_own_lane_the_header_stays_as_it_is(desk: Desk, header: bytes) -> None:
    assert desk.answered(header, kind=lane.REQUEST) == BARE


@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\\'), min_size=1))
def test_a_header_with_its_id_is_not_known_itself(desk: Desk, name: str) -> None:
    header = b'{"id":"%b"}' % name.encode()
    executed, _, _, found, _, _ = desk.spell(lane.FORWARD, header, header, BARE)
    assert executed == 0
    assert found is not None
    _, (left, (frame,), _) = found
    assert left is None
    assert bytes(frame.header) == header


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_header_too_long_to_be_kept_is_taken_as_it_is(desk: Desk, more: int) -> None:
    start = b'{"id":"abc","name":"'
    header = start + b"n" * (LONGEST_KEPT + more - len(start) - 2) + b'"}'
    assert len(header) == LONGEST_KEPT + more
    kept = more <= 0
    known = without_id(header)[0] if kept else header
    executed, *_ = desk.spell(lane.FORWARD, header, known, BARE)
    assert executed == 1
    (frame,) = desk.peer.receive()
    assert bytes(frame.header) == (with_id(BARE, b"abc") if kept else BARE)


@pytest.mark.parametrize("answer", [b"", b"}", b'"id":""', b'{"id":"" }', b'{"id":"b"}'])
def test_an_answer_that_does_not_end_in_an_empty_id_is_left(desk: Desk, answer: bytes) -> None:
    executed, _, _, found, _, _ = desk.spell(lane.FORWARD, b'{"id":"a"}', b'{"id":""}', answer)
    assert executed == 1
    _, ((frame, _, (failed, given, sent, _)), rest, _) = found
    assert (frame.request_id, failed, sent, rest) == (3, False, 0, [])
    assert given["x"].tolist() == [0]
    assert not desk.peer.receive()


@pytest.mark.parametrize("answer", [b"", b"}", b'{"id":"b"}'])
def test_without_an_id_any_answer_goes_as_it_is(desk: Desk, answer: bytes) -> None:
    assert desk.answered(b"{}", answer) == answer
