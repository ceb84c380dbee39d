"""Frames over a real socket, by either twin: the same frames, the same refusals, the same end."""

from __future__ import annotations

import array
import gc
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superbrain.transport import compiled
from superbrain.transport.frame_reader import FrameReader, PythonReader, frame_reader
from superbrain.transport.frame_writer import encode_frame
from superbrain.transport.lane_socket import LaneSocket
from superbrain.wire import lane
from superbrain.wire.lane import LaneError
from tests.support.keeping import assert_keeps_nothing
from tests.support.twins import MISSING, twin

__all__ = ["twin"]
PREFIX = struct.Struct("<BBHIQQ")
MOMENT_NS = 5_000_000
LONG_NS = 10_000_000_000
NEVER_NS = 2**62  # nobody gives way for so long
FEW = settings(max_examples=60, deadline=None)
FRAMES = st.lists(
    st.tuples(
        st.integers(lane.HELLO, lane.ALONE),
        st.binary(max_size=200),
        st.lists(st.one_of(st.binary(max_size=100), st.integers(0, 90_000).map(bytes)), max_size=4),
        st.integers(0, 2**64 - 1),
    ),
    max_size=4,
)
Fields = tuple[int, bytes, list[bytes], int]


class Ends(NamedTuple):
    """A reader, what it reads from, and where its descriptors go."""

    ours: socket.socket
    theirs: socket.socket
    reader: FrameReader
    descriptors: list[int]

    def read(self, *, takes_descriptors: bool = False) -> list[lane.LaneFrame]:
        """Read as long as anything is there."""
        frames: list[lane.LaneFrame] = []
        while True:
            frames += self.reader.receive(self.ours.fileno(), takes_descriptors)
            if self.reader.ended or not readable(self.ours):
                return frames

    def look(
        self, moment_ns: int, crowded_ns: int = NEVER_NS, *, takes_descriptors: bool = False
    ) -> list[lane.LaneFrame]:
        began_ns = time.monotonic_ns()
        frames = self.reader.look(self.ours.fileno(), takes_descriptors, moment_ns, crowded_ns)
        if moment_ns == LONG_NS:  # something ends it earlier
            assert time.monotonic_ns() - began_ns < LONG_NS // 2
        return frames

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        for fd in self.descriptors:
            os.close(fd)


def readable(sock: socket.socket) -> bool:
    """Whether there is something to read, the end included."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True


def ends(*, python: bool = False) -> Ends:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    found: list[int] = []
    reader = PythonReader(ours, found) if python else frame_reader(ours, found)
    return Ends(ours, theirs, reader, found)


@pytest.fixture
def pair(twin: str) -> Iterator[Ends]:
    pair = ends()
    assert isinstance(pair.reader, PythonReader) == (twin == "python")
    yield pair
    pair.close()


def wire(fields: Fields) -> bytes:
    kind, header, tensors, number = fields
    frame = lane.encode(kind, header, tensors, request_id=number, deadline_ns=5, priority=3)
    return b"".join(map(bytes, frame))


def plain(frames: list[lane.LaneFrame]) -> list[Fields]:
    assert all((frame.deadline_ns, frame.priority) == (5, 3) for frame in frames)
    return [
        (one.kind, bytes(one.header), [bytes(tensor) for tensor in one.tensors], one.request_id)
        for one in frames
    ]


def fed(pair: Ends, stream: bytes, steps: list[int]) -> list[Fields] | str:
    """What comes of a stream in pieces of these sizes: frames, or the refusal."""
    found: list[lane.LaneFrame] = []
    try:
        while stream:
            step = steps.pop(0) if steps else 50_000
            pair.theirs.sendall(stream[:step])
            found += pair.read()
            stream = stream[step:]
    except LaneError as error:
        return str(error)[:24]
    finally:
        pair.close()
    return plain(found)


@FEW
@given(FRAMES, st.lists(st.integers(1, 5000), max_size=20))
def test_any_split_of_the_stream_gives_the_same_frames(
    frames: list[Fields], steps: list[int]
) -> None:
    stream = b"".join(map(wire, frames))
    for python in (False, True):
        assert fed(ends(python=python), stream, list(steps)) == frames


@FEW
@given(st.binary(max_size=300), st.lists(st.integers(1, 90), max_size=10))
def test_bytes_that_are_no_frame_are_refused_alike(stream: bytes, steps: list[int]) -> None:
    bent = PREFIX.pack(2, 0, 1, 3, 0, 0) + stream
    for one in (stream, bent):
        outcomes = []
        for python in (False, True):
            try:
                outcomes.append(fed(ends(python=python), one, list(steps)))
            except AssertionError:  # frames of the garbage have other fields
                outcomes.append("frames")
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("size", [0, 1, 4_000, 65_430, 65_503, 65_504, 65_505, 65_536, 200_000])
def test_frames_around_every_limit_come_whole_and_writable(pair: Ends, size: int) -> None:
    fields: Fields = (lane.REQUEST, b"h", [b"\x07" * size, b"tail"], 1)
    sender = threading.Thread(target=pair.theirs.sendall, args=(wire(fields) * 3,))
    sender.start()
    frames: list[lane.LaneFrame] = []
    while len(frames) < 3:
        frames += pair.read()
    sender.join()
    assert plain(frames) == [fields] * 3
    assert pair.reader.between_frames
    assert not frames[0].tensors[0].readonly
    frames[0].tensors[1][:] = b"mine"
    assert bytes(frames[1].tensors[1]) == b"tail"


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        (PREFIX.pack(0, 0, 0, 0, 0, 0), "found kind 0"),
        (PREFIX.pack(10, 0, 0, 0, 0, 0), "found kind 10"),
        (PREFIX.pack(lane.REQUEST, 0, 1025, 0, 0, 0), "1025 tensors"),
        (PREFIX.pack(lane.REQUEST, 0, 0, (1 << 20) + 1, 0, 0), "header of 1048577"),
        (PREFIX.pack(lane.REQUEST, 0, 1, 0, 0, 0) + struct.pack("<Q", 1 << 63), "at most"),
        (PREFIX.pack(lane.REQUEST, 0, 2, 9, 0, 0) + struct.pack("<QQ", *[2**64 - 1] * 2), "at mo"),
        (PREFIX.pack(lane.REQUEST, 0, 1, 9, 0, 0) + struct.pack("<Q", 2**64 - 65), "at most"),
        (PREFIX.pack(lane.REQUEST, 0, 1, 0, 0, 0) + struct.pack("<Q", (1 << 28) + 1), "at most"),
    ],
)
def test_a_frame_beyond_the_limits_is_refused(pair: Ends, prefix: bytes, sentence: str) -> None:
    pair.theirs.sendall(prefix)
    with pytest.raises(LaneError, match=sentence):
        pair.read()


def test_what_was_sent_before_the_end_is_read_and_then_the_end(pair: Ends) -> None:
    fields: Fields = (lane.RESPONSE, b"{}", [], 9)
    pair.theirs.sendall(wire(fields))
    ended = []
    assert plain(pair.read()) == [fields]
    ended.append(pair.reader.ended)
    pair.theirs.sendall(wire(fields)[:10])
    pair.theirs.close()
    assert pair.read() == []
    ended.append(pair.reader.ended)
    assert ended == [False, True]
    assert not pair.reader.between_frames


def send_descriptors(pair: Ends, count: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * count))
    pair.theirs.sendmsg([wire((lane.REGION, b"", [], 1))], [rights])
    os.close(null)


def test_descriptors_come_with_their_frame_and_are_closed_on_exec(pair: Ends) -> None:
    send_descriptors(pair, 2)
    assert len(pair.read(takes_descriptors=True)) == 1
    assert len(pair.descriptors) == 2
    assert not any(os.get_inheritable(fd) for fd in pair.descriptors)


def test_more_descriptors_than_may_come_are_refused(pair: Ends) -> None:
    send_descriptors(pair, 5)
    with pytest.raises(LaneError, match="at most 4 descriptors"):
        pair.read(takes_descriptors=True)


def open_descriptors() -> int:
    gc.collect()  # what other tests have left behind
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_that_may_not_come_are_dropped_by_the_kernel(pair: Ends) -> None:
    before = open_descriptors()
    send_descriptors(pair, 3)
    assert len(pair.read()) == 1
    assert pair.descriptors == []
    assert open_descriptors() == before


LOOKED_FOR: Fields = (lane.RESPONSE, b"{}", [b"seven"], 7)


def test_a_look_gives_what_is_there_at_once(pair: Ends) -> None:
    pair.theirs.sendall(wire(LOOKED_FOR) * 2)
    assert plain(pair.look(LONG_NS)) == [LOOKED_FOR] * 2
    assert (pair.reader.ended, pair.reader.crowded) == (False, False)


def test_a_look_in_vain_takes_the_moment_and_gives_nothing(pair: Ends) -> None:
    for moment_ns in (MOMENT_NS, 0):
        began_ns = time.monotonic_ns()
        assert pair.look(moment_ns) == []
        assert time.monotonic_ns() - began_ns >= moment_ns
    assert (pair.reader.ended, pair.reader.crowded) == (False, False)


def test_a_look_of_no_time_is_one_look(pair: Ends) -> None:
    assert pair.look(0, 0) == []
    assert not pair.reader.crowded  # it has not given way
    pair.theirs.sendall(wire(LOOKED_FOR))
    assert plain(pair.look(0, 0)) == [LOOKED_FOR]


def test_a_look_gives_what_comes_meanwhile(pair: Ends) -> None:
    looks = threading.Semaphore(0)

    def send() -> None:
        for _ in range(10):
            looks.acquire()
            pair.theirs.sendall(wire(LOOKED_FOR))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for _ in range(10):
        looks.release()
        assert plain(pair.look(LONG_NS)) == [LOOKED_FOR]
    sender.join()


def test_a_look_ends_with_the_lane(pair: Ends) -> None:
    pair.theirs.sendall(wire(LOOKED_FOR))
    pair.theirs.close()
    assert plain(pair.look(LONG_NS)) == [LOOKED_FOR]
    assert not pair.reader.ended
    assert pair.look(LONG_NS) == []
    assert pair.reader.ended


def test_who_gives_way_for_too_long_looks_no_more(pair: Ends) -> None:
    assert pair.look(LONG_NS, 0) == []
    assert pair.reader.crowded
    pair.theirs.sendall(wire(LOOKED_FOR))
    assert plain(pair.look(LONG_NS, 0)) == [LOOKED_FOR]
    assert not pair.reader.crowded  # this time it has not given way


@pytest.mark.parametrize("begun", [40, 65_536])
def test_a_look_does_not_wait_for_the_rest_of_a_frame(pair: Ends, begun: int) -> None:
    fields: Fields = (lane.RESPONSE, b"{}", [bytes(70_000)], 7)
    stream = wire(fields)
    pair.theirs.sendall(stream[:begun])
    assert pair.look(LONG_NS) == []
    assert not pair.reader.between_frames
    pair.theirs.sendall(stream[begun:])
    frames: list[lane.LaneFrame] = []
    while not frames:
        frames = pair.look(LONG_NS)
    assert plain(frames) == [fields]
    assert pair.reader.between_frames


def test_a_look_refuses_what_is_no_frame(pair: Ends) -> None:
    pair.theirs.sendall(b"\xff" * 40)
    with pytest.raises(LaneError, match="found kind 255"):
        pair.look(LONG_NS)


def test_a_look_takes_descriptors_where_they_may_come(pair: Ends) -> None:
    send_descriptors(pair, 1)
    assert len(pair.look(LONG_NS, takes_descriptors=True)) == 1
    send_descriptors(pair, 1)
    assert len(pair.look(LONG_NS)) == 1
    assert len(pair.descriptors) == 1


def test_looking_keeps_nothing(pair: Ends) -> None:
    stream = wire(LOOKED_FOR)

    def once() -> None:
        assert pair.look(1) == []
        assert pair.look(LONG_NS, 0) == []
        pair.theirs.sendall(stream)
        assert len(pair.look(LONG_NS)) == 1

    assert_keeps_nothing(once)


TENSORS = st.lists(st.one_of(st.binary(max_size=90), st.integers(0, 9_000).map(bytes)), max_size=70)


@FEW
@given(st.binary(max_size=200), TENSORS, st.integers(0, 2**64 - 1), st.integers(0, 255))
def test_both_twins_write_the_same_bytes(
    header: bytes, tensors: list[bytes], number: int, priority: int
) -> None:
    twin_wrote = lane.encode(
        lane.RESPONSE, header, tensors, request_id=number, deadline_ns=7, priority=priority
    )
    wrote = encode_frame(
        lane.RESPONSE, header, list(tensors), request_id=number, deadline_ns=7, priority=priority
    )
    assert b"".join(map(bytes, wrote)) == b"".join(map(bytes, twin_wrote))


@pytest.mark.usefixtures("twin")
@pytest.mark.parametrize("size", [4, 5_000, 3_000_000])
def test_a_frame_that_the_peer_takes_in_parts_arrives_whole(size: int) -> None:
    near, far = socket.socketpair()
    sender, receiver = LaneSocket(near), LaneSocket(far)
    tensors: list[lane.Data] = [bytes(range(256)) * (size // 256 + 1), b"end"]
    for number in range(3):
        sender.send_frame(lane.RESPONSE, b"head", tensors, number)
    frames: list[lane.LaneFrame] = []
    while len(frames) < 3:
        sender.flush()
        frames += receiver.receive()
    assert [frame.request_id for frame in frames] == [0, 1, 2]
    assert all([bytes(one) for one in frame.tensors] == tensors for frame in frames)
    sender.close()
    receiver.close()


@pytest.mark.usefixtures("twin")
def test_a_peer_that_is_gone_breaks_the_lane_and_raises_nothing() -> None:
    near, far = socket.socketpair()
    sender = LaneSocket(near)
    far.close()
    sender.send_frame(lane.RESPONSE, b"head", [], 1)
    assert sender.broken
    assert sender.pending_bytes == 0
    sender.send_frame(lane.RESPONSE, b"head", [], 2)
    sender.close()
    assert sender.receive() == []


def test_two_threads_in_one_reader_are_told_apart_from_harm() -> None:
    module = compiled.loop()
    if module is None:
        pytest.skip(MISSING)
    ours, theirs = socket.socketpair()
    inner: list[str] = []

    def room(size: int) -> memoryview:
        try:
            reader.receive(ours.fileno(), False)
        except RuntimeError as error:
            inner.append(str(error))
        return np.empty(size, np.uint8).data

    reader = module.Reader(1 << 28, room, LaneError, [])
    theirs.sendall(PREFIX.pack(lane.REQUEST, 0, 1, 0, 0, 0) + struct.pack("<Q", 100_000))
    assert reader.receive(ours.fileno(), False) == []
    assert inner == ["a Reader is for one thread at a time"]
    ours.close()
    theirs.close()


@pytest.mark.parametrize("given", [lambda _: None, bytes, bytearray(3)])
def test_room_that_is_none_is_refused(given: object) -> None:
    module = compiled.loop()
    if module is None:
        pytest.skip(MISSING)
    ours, theirs = socket.socketpair()
    reader = module.Reader(1 << 28, given, LaneError, [])
    theirs.sendall(PREFIX.pack(lane.REQUEST, 0, 1, 0, 0, 0) + struct.pack("<Q", 100_000))
    with pytest.raises((TypeError, BufferError)):
        reader.receive(ours.fileno(), False)
    ours.close()
    theirs.close()


def test_reading_and_writing_keep_nothing(pair: Ends) -> None:
    stream = wire((lane.REQUEST, b"head", [b"a" * 70, b""], 1)) + wire((lane.ERROR, b"e", [], 2))

    def once() -> None:
        pair.theirs.sendall(stream)
        assert len(pair.read()) == 2
        encode_frame(lane.RESPONSE, b"head", [b"x"], request_id=1)

    assert_keeps_nothing(once)
