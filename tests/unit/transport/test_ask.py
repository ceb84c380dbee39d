"""A request and the look for its answer in one step, by the compiled loop over a real socket."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from superbrain.transport import compiled
from superbrain.transport.lane_socket import LaneSocket, Sent
from superbrain.transport.packing import Packing, packing_of
from superbrain.wire import lane
from superbrain.wire.lane import LaneFrame
from tests.support.keeping import TIMES, assert_keeps_nothing
from tests.support.twins import MISSING

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.array([3, 4], np.int64)
HEADER, KNOWN, NEW = b'{"model":"m"}', b'{"answer":"as ever"}', b'{"answer":"as never"}'
NUMBER, DEADLINE_NS = 7, 2**63 + 5
MOMENT_NS, LONG_NS, NEVER_NS = 1_000, 10_000_000_000, 2**62


def packed(arrays: dict[str, Any]) -> Packing:
    packing = packing_of(arrays)
    assert packing is not None
    return packing


class Ends:
    """A lane, the peer that it asks, and what is known of its answers."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        self.lane, self.peer = LaneSocket(near), LaneSocket(far)
        self.near = near
        self.entry = (packed({"y": Y}), "what is known of such answers")
        self.answers = {KNOWN: self.entry}
        self.inputs: dict[str, Any] = {"x": X}
        self.packing = packed(self.inputs)

    def ask(
        self, number: int = NUMBER, *, moment_ns: int = MOMENT_NS, crowded_ns: int = NEVER_NS
    ) -> tuple[dict[str, Any], Any] | Sent | None:
        return self.lane.ask(
            self.packing,
            self.inputs,
            HEADER,
            number,
            DEADLINE_NS,
            self.answers,
            moment_ns,
            crowded_ns,
        )

    def sent(self, *, moment_ns: int = MOMENT_NS, crowded_ns: int = NEVER_NS) -> Sent:
        """Ask, where that is not answered in one step."""
        done = self.ask(moment_ns=moment_ns, crowded_ns=crowded_ns)
        assert isinstance(done, Sent)
        assert [bytes(tensor) for tensor in done.tensors] == [X.tobytes()]
        return done

    def answered(self) -> dict[str, Any]:
        """Ask, where that is answered in one step."""
        done = self.ask(moment_ns=LONG_NS)
        assert done is not None
        assert not isinstance(done, Sent)
        arrays, entry = done
        assert entry is self.entry
        return arrays

    def send(
        self,
        header: bytes = KNOWN,
        *,
        kind: int = lane.RESPONSE,
        tensors: tuple[bytes, ...] = (Y.tobytes(),),
        number: int = NUMBER,
    ) -> None:
        """Let the peer answer, which may be before it was asked."""
        self.peer.send_frame(kind, header, tensors, number)

    def requests(self) -> list[LaneFrame]:
        """What the peer has to read."""
        frames: list[LaneFrame] = []
        while found := self.peer.receive():
            frames += found
        return frames

    def close(self) -> None:
        self.lane.close()
        self.peer.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    if compiled.loop() is None:
        pytest.skip(MISSING)
    ends = Ends()
    yield ends
    ends.close()


def test_the_usual_answer_comes_as_arrays_with_what_is_known_of_it(ends: Ends) -> None:
    ends.send()
    arrays = ends.answered()
    assert list(arrays) == ["y"]
    np.testing.assert_array_equal(arrays["y"], Y)
    assert arrays["y"].flags.writeable


def test_the_peer_gets_the_request_with_its_number_and_deadline(ends: Ends) -> None:
    ends.send()
    ends.answered()
    (request,) = ends.requests()
    assert (request.kind, request.priority) == (lane.REQUEST, 0)
    assert (request.request_id, request.deadline_ns) == (NUMBER, DEADLINE_NS)
    assert bytes(request.header) == HEADER
    assert [bytes(one) for one in request.tensors] == [X.tobytes()]


@pytest.mark.parametrize("number", [0, 1, 2**64 - 1])
def test_the_answer_is_told_by_its_number(ends: Ends, number: int) -> None:
    ends.send(number=number)
    assert not isinstance(ends.ask(number, moment_ns=LONG_NS), Sent)


def test_two_answers_lie_on_memory_of_their_own(ends: Ends) -> None:
    ends.send()
    first = ends.answered()["y"]
    ends.send()
    second = ends.answered()["y"]
    first[:] = 0
    np.testing.assert_array_equal(second, Y)


def test_no_answer_within_the_moment_leaves_a_request_that_was_sent(ends: Ends) -> None:
    assert ends.sent() == ([memoryview(X.tobytes())], [], False)
    assert len(ends.requests()) == 1
    assert (ends.lane.pending_bytes, ends.lane.ended) == (0, False)
    ends.send()
    assert [frame.request_id for frame in ends.lane.receive()] == [NUMBER]


def test_who_finds_the_processor_wanted_says_so(ends: Ends) -> None:
    assert ends.sent(moment_ns=LONG_NS, crowded_ns=0).crowded


@pytest.mark.parametrize(
    "unusual",
    [
        {"header": NEW},
        {"kind": lane.ERROR},
        {"number": NUMBER + 1},
        {"kind": lane.GOODBYE},
        {"tensors": ()},
        {"tensors": (Y.tobytes()[1:],)},
        {"tensors": (Y.tobytes(), b"")},
    ],
    ids=repr,
)
def test_an_unusual_answer_is_left_to_the_caller(ends: Ends, unusual: dict[str, Any]) -> None:
    ends.send(**unusual)
    (frame,) = ends.sent(moment_ns=LONG_NS).frames
    assert frame.kind == unusual.get("kind", lane.RESPONSE)
    assert frame.request_id == unusual.get("number", NUMBER)
    assert bytes(frame.header) == unusual.get("header", KNOWN)
    assert tuple(map(bytes, frame.tensors)) == unusual.get("tensors", (Y.tobytes(),))


@pytest.mark.parametrize("numbers", [[NUMBER - 1, NUMBER], [NUMBER, NUMBER - 1], [NUMBER] * 2])
def test_two_frames_are_left_to_the_caller(ends: Ends, numbers: list[int]) -> None:
    for number in numbers:
        ends.send(number=number)
    frames = ends.sent(moment_ns=LONG_NS).frames
    assert [frame.request_id for frame in frames] == numbers


@pytest.mark.parametrize("entry", [(), ("no packing",), "no tuple", None], ids=repr)
def test_an_entry_without_a_packing_is_as_none(ends: Ends, entry: object) -> None:
    answers: dict[bytes, Any] = {KNOWN: entry}
    ends.answers = answers
    ends.send()
    assert len(ends.sent(moment_ns=LONG_NS).frames) == 1


def test_of_inputs_that_are_not_alike_nothing_is_sent(ends: Ends) -> None:
    for inputs in ({"x": X.T}, {"z": X}, {"x": X, "z": X}, {}):
        ends.inputs = inputs
        assert ends.ask(moment_ns=LONG_NS) is None
    assert ends.requests() == []
    assert ends.lane.pending_bytes == 0


def test_without_the_compiled_loop_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "loop", lambda: None)
    ends = Ends()
    ends.send()
    assert ends.ask() is None
    assert ends.requests() == []
    ends.close()


def test_what_the_peer_does_not_take_yet_is_kept_and_arrives_whole(ends: Ends) -> None:
    large = np.arange(8_000_000, dtype=np.float32)
    ends.inputs = {"x": large}
    ends.packing = packed(ends.inputs)
    done = ends.ask(moment_ns=LONG_NS)
    assert isinstance(done, Sent)
    assert (done.frames, [len(one) for one in done.tensors]) == ([], [large.nbytes])
    kept_bytes = ends.lane.pending_bytes
    assert 0 < kept_bytes < large.nbytes
    assert ends.ask() is None  # what is kept comes first
    assert ends.lane.pending_bytes == kept_bytes

    frames: list[LaneFrame] = []
    while not frames:
        ends.lane.flush()
        frames = ends.peer.receive()
    assert ends.lane.pending_bytes == 0
    (request,) = frames
    assert (request.kind, request.request_id) == (lane.REQUEST, NUMBER)
    assert (request.deadline_ns, bytes(request.header)) == (DEADLINE_NS, HEADER)
    assert bytes(request.tensors[0]) == large.tobytes()
    assert ends.requests() == []


def test_more_tensors_than_are_sent_together_arrive_all_the_same(ends: Ends) -> None:
    ends.inputs = {str(n): X + n for n in range(65)}
    ends.packing = packed(ends.inputs)
    assert isinstance(ends.ask(), Sent)
    ends.lane.flush()
    (request,) = ends.requests()
    assert (request.kind, request.request_id) == (lane.REQUEST, NUMBER)
    assert (request.deadline_ns, bytes(request.header)) == (DEADLINE_NS, HEADER)
    assert [bytes(one) for one in request.tensors] == [
        array.tobytes() for array in ends.inputs.values()
    ]


def test_the_end_of_the_lane_is_noted(ends: Ends) -> None:
    ends.near.shutdown(socket.SHUT_RD)
    assert ends.sent(moment_ns=LONG_NS).frames == []
    assert ends.lane.ended
    assert ends.ask() is None


def test_a_peer_that_is_gone_breaks_the_lane_and_leaves_what_it_had_sent(ends: Ends) -> None:
    ends.send()
    ends.peer.close()
    assert ends.sent(moment_ns=LONG_NS).frames == []
    assert ends.lane.broken
    assert ends.lane.pending_bytes == 0
    assert ends.ask() is None
    assert [frame.request_id for frame in ends.lane.receive()] == [NUMBER]
    assert ends.lane.receive() == []
    assert ends.lane.ended


def test_garbage_ends_the_lane_and_leaves_the_request(ends: Ends) -> None:
    ends.peer.send([b"\xff" * 40])
    assert ends.sent(moment_ns=LONG_NS) == ([memoryview(X.tobytes())], [], None)
    assert ends.lane.ended
    assert ends.ask() is None
    assert len(ends.requests()) == 1


def test_what_is_no_use_of_the_loop_is_refused(ends: Ends) -> None:
    module = compiled.loop()
    assert module is not None
    reader = ends.lane._reader
    good: tuple[Any, ...] = (
        reader,
        ends.lane.fd,
        ends.packing,
        ends.inputs,
        HEADER,
        1,
        0,
        {},
        1,
        1,
    )
    for place, wrong in ((0, None), (1, "1"), (2, None), (5, -1), (6, 2**64), (7, None), (8, -1)):
        with pytest.raises((TypeError, OverflowError)):
            module.ask(*good[:place], wrong, *good[place + 1 :])
    with pytest.raises(TypeError):
        module.ask(*good[:-1])
    with pytest.raises(TypeError, match="bytes-like"):
        module.ask(*good[:4], "text", *good[5:])
    assert ends.requests() == []


def test_asking_keeps_nothing(ends: Ends) -> None:
    watched = [X, X.dtype, np.ndarray, HEADER, KNOWN, ends.entry, ends.packing, ends.inputs]
    if sys.version_info < (3, 12):
        watched.append(None)  # to later ones it is immortal, however it is counted

    def once() -> None:
        ends.send()
        ends.answered()
        ends.send(NEW)
        assert len(ends.sent(moment_ns=LONG_NS).frames) == 1
        ends.send(tensors=(b"short",))
        assert len(ends.sent(moment_ns=LONG_NS).frames) == 1
        assert ends.sent().frames == []
        ends.inputs["z"] = X
        assert ends.ask() is None
        del ends.inputs["z"]
        assert len(ends.requests()) == 4

    assert_keeps_nothing(once)
    counted = [sys.getrefcount(one) for one in watched]
    for _ in range(TIMES):
        once()
    gc.collect()
    after = [sys.getrefcount(one) for one in watched]
    assert all(
        abs(late - early) < TIMES / 20 for early, late in zip(counted, after, strict=True)
    ), list(zip(counted, after, strict=True))


def test_asking_in_vain_keeps_nothing(ends: Ends) -> None:
    def once() -> None:
        one = Ends()
        one.peer.send([b"\xff" * 40])
        assert one.sent().frames == []
        one.close()
        two = Ends()
        two.peer.close()
        assert two.sent().frames == []
        two.close()

    assert_keeps_nothing(once)
