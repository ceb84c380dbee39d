"""Lane frames: any split of the byte stream gives the same frames, and garbage only `LaneError`."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.wire import lane

PREFIX = struct.Struct("<BBHIQQ")
KINDS = [kind for kind in range(lane.HELLO, lane.RELEASE + 1) if kind != 6]  # 6: none yet
FRAMES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                lane.HELLO,
                lane.REQUEST,
                lane.RESPONSE,
                lane.ERROR,
                lane.GOODBYE,
                lane.REGION,
                lane.RELEASE,
            ]
        ),
        st.integers(0, 255),
        st.binary(max_size=200),
        st.lists(st.one_of(st.binary(max_size=100), st.integers(0, 90_000).map(bytes)), max_size=4),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
    ),
    max_size=6,
)
Fields = tuple[int, int, bytes, list[bytes], int, int]


def encoded(fields: Fields) -> bytes:
    kind, priority, header, tensors, request_id, deadline_ns = fields
    buffers = lane.encode(
        kind, header, tensors, request_id=request_id, deadline_ns=deadline_ns, priority=priority
    )
    return b"".join(bytes(buffer) for buffer in buffers)


def decoded(stream: bytes, steps: list[int]) -> list[Fields]:
    """Feed the stream in pieces of the given sizes, then as fast as the decoder takes it."""
    decoder = lane.LaneDecoder()
    frames: list[lane.LaneFrame] = []
    offset = 0
    while offset < len(stream):
        room = decoder.buffer()
        step = min(steps.pop(0) if steps else len(room), len(room), len(stream) - offset)
        room[:step] = stream[offset : offset + step]
        frames += decoder.received(step)
        offset += step
    return [
        (
            frame.kind,
            frame.priority,
            bytes(frame.header),
            [bytes(tensor) for tensor in frame.tensors],
            frame.request_id,
            frame.deadline_ns,
        )
        for frame in frames
    ]


@given(FRAMES, st.lists(st.integers(1, 5000), max_size=40))
def test_any_split_of_the_stream_gives_the_same_frames(
    frames: list[Fields], steps: list[int]
) -> None:
    assert decoded(b"".join(map(encoded, frames)), steps) == frames


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 65_503, 65_504, 65_505, 65_536, 200_000])
def test_frames_around_the_staging_size_come_whole(size: int) -> None:
    frame: Fields = (lane.REQUEST, 0, b"h", [b"\x07" * size, b"tail"], 1, 2)
    assert decoded(encoded(frame) * 3, []) == [frame] * 3


@given(st.binary(min_size=1, max_size=300))
def test_arbitrary_bytes_raise_only_lane_error(stream: bytes) -> None:
    decoder = lane.LaneDecoder(1 << 20)
    offset = 0
    try:
        while offset < len(stream):
            room = decoder.buffer()
            step = min(len(room), len(stream) - offset)
            room[:step] = stream[offset : offset + step]
            decoder.received(step)
            offset += step
    except lane.LaneError:
        return


@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        (PREFIX.pack(0, 0, 0, 0, 0, 0), "found kind 0"),
        (PREFIX.pack(10, 0, 0, 0, 0, 0), "found kind 10"),
        (PREFIX.pack(lane.REQUEST, 0, 1025, 0, 0, 0), "1025 tensors"),
        (PREFIX.pack(lane.REQUEST, 0, 0, (1 << 20) + 1, 0, 0), "header of 1048577"),
        (PREFIX.pack(lane.REQUEST, 0, 1, 0, 0, 0) + struct.pack("<Q", 1 << 63), "at most"),
    ],
)
def test_a_frame_beyond_the_limits_is_refused(prefix: bytes, sentence: str) -> None:
    decoder = lane.LaneDecoder(1 << 20)
    decoder.buffer()[: len(prefix)] = prefix
    with pytest.raises(lane.LaneError, match=sentence):
        decoder.received(len(prefix))


def test_tensors_start_aligned_within_the_body() -> None:
    buffers = lane.encode(lane.REQUEST, b"x" * 5, [b"a" * 7, b"b" * 3])
    body = b"".join(map(bytes, buffers))[PREFIX.size + 16 :]
    assert body[lane.ALIGNMENT : lane.ALIGNMENT + 7] == b"a" * 7
    assert body[2 * lane.ALIGNMENT :] == b"bbb"


@pytest.mark.parametrize("size", [10, 100_000])
def test_received_tensors_are_writable_whatever_their_size(size: int) -> None:
    decoder = lane.LaneDecoder()
    stream = encoded((lane.REQUEST, 0, b"h", [bytes(size)], 0, 0))
    frames: list[lane.LaneFrame] = []
    while stream:
        room = decoder.buffer()
        step = min(len(room), len(stream))
        room[:step] = stream[:step]
        frames += decoder.received(step)
        stream = stream[step:]
    assert not frames[0].tensors[0].readonly
