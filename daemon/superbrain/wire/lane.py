"""Frames on a lane: the Unix stream socket between a worker and whoever asks it.

A lane carries the same JSON header and tensors as ZeroMQ does, behind a fixed prefix:

    kind u8 · priority u8 · tensor count u16 · header bytes u32 · request id u64 · deadline u64
    then one u64 length per tensor, the header, and the tensors

all little-endian; the header and every tensor start at a multiple of `ALIGNMENT` bytes from the
start of the body, so that arrays are views on the received buffer. `deadline` is CLOCK_MONOTONIC
in nanoseconds (a lane never leaves its host), 0 for none. The worker speaks first: HELLO. GOODBYE
means that it retires: it may still answer some of what it was sent before, and then ends the lane,
having executed nothing else. An end without it means that the worker died. REGION registers shared
memory and RELEASE ends that; each is answered by its own kind, or by ERROR. FORWARD is a REQUEST
that the gateway passes on, and answered like one; ALONE is a FORWARD that must not share a run with
others, because it is suspected of a worker's death.

This module does no I/O: `encode` gives buffers for sendmsg, `LaneDecoder` says where to receive.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np

from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import MAX_HEADER_BYTES, MAX_TENSORS

if TYPE_CHECKING:
    from collections.abc import Sequence

HELLO: Final = 1
REQUEST: Final = 2
RESPONSE: Final = 3
ERROR: Final = 4
GOODBYE: Final = 5
FORWARD: Final = 6
REGION: Final = 7
RELEASE: Final = 8
ALONE: Final = 9

ALIGNMENT: Final = 64
MAX_BODY_BYTES: Final = 1 << 32
MOST_OUTSTANDING: Final = 1 << 16  # requests on one lane without an answer
_PREFIX = struct.Struct("<BBHIQQ")
_PADDING = tuple(bytes(n) for n in range(ALIGNMENT))
_STAGING_BYTES: Final = 1 << 16
_JOINED_BELOW_BYTES: Final = 1 << 12  # copied rather than handed to the kernel by themselves

Data = bytes | memoryview
_Fields = tuple[int, int, int, int, int, int]  # of the prefix, in its order


class LaneError(SuperbrainError):
    """The peer on a lane sent what is no frame; the lane cannot be used any further."""


class Hello(msgspec.Struct, frozen=True):
    """The worker's greeting: who answers here, and how many requests it wants outstanding.

    `lane` is this lane's number on the flight page, whose descriptor comes with the frame.
    """

    model_name: str
    model_version: str
    deployment_id: int
    window: Annotated[int, msgspec.Meta(ge=1, le=MOST_OUTSTANDING)]
    lane: Annotated[int, msgspec.Meta(ge=0)] = 0


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Header of REGION: memory to share, whose descriptor comes with the frame.

    `region` is a number of the peer's choice. The worker writes there only if it is `writable`.
    """

    region: int
    size_bytes: int
    writable: bool = False


class RegionRelease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Header of RELEASE: the region is not used any more."""

    region: int


class LaneFrame:
    """One frame as received: `header` and `tensors` are views on one writable buffer of its own."""

    __slots__ = ("deadline_ns", "header", "kind", "priority", "request_id", "tensors")

    def __init__(
        self,
        kind: int,
        priority: int,
        request_id: int,
        deadline_ns: int,
        header: memoryview,
        tensors: list[memoryview],
    ) -> None:
        self.kind = kind
        self.priority = priority
        self.request_id = request_id
        self.deadline_ns = deadline_ns
        self.header = header
        self.tensors = tensors


def encode(
    kind: int,
    header: Data = b"",
    tensors: Sequence[Data] = (),
    *,
    request_id: int = 0,
    deadline_ns: int = 0,
    priority: int = 0,
) -> list[Data]:
    """Give the buffers of one frame, ready for `socket.sendmsg`; large tensors are not copied."""
    count, size = len(tensors), len(header)
    if not count:
        return [_PREFIX.pack(kind, priority, 0, size, request_id, deadline_ns) + bytes(header)]
    head = _head_struct(count).pack(
        kind, priority, count, size, request_id, deadline_ns, *map(len, tensors)
    )
    padding = _PADDING[-size % ALIGNMENT]
    if count == 1 and len(tensors[0]) < _JOINED_BELOW_BYTES:
        return [b"".join((head, header, padding, tensors[0]))]
    buffers: list[Data] = [b"".join((head, header, padding))]
    for tensor in tensors[:-1]:
        buffers += (tensor, _PADDING[-len(tensor) % ALIGNMENT])
    buffers.append(tensors[-1])
    return buffers


class LaneDecoder:
    """Turns received bytes into frames: receive into `buffer()`, then call `received(count)`.

    Small frames are cut out of one staging buffer; a large body gets a buffer of its own, sized
    once, that the kernel writes into directly.
    """

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._staging = memoryview(bytearray(_STAGING_BYTES))
        self._filled = 0
        self._body: memoryview | None = None
        self._body_filled = 0
        self._fields: _Fields | None = None
        self._sizes: tuple[int, ...] = ()

    @property
    def between_frames(self) -> bool:
        """Whether no part of a frame has been received that is not whole."""
        return self._body is None and not self._filled

    def buffer(self) -> memoryview:
        """Give the memory that the next bytes from the socket belong in."""
        if self._body is not None:
            return self._body[self._body_filled :]
        return self._staging[self._filled :]

    def received(self, count: int) -> list[LaneFrame]:
        """Take note of `count` bytes put into `buffer()`; give the frames that are now whole.

        Raises:
            LaneError: the bytes are no frame, or a frame beyond the limits.
        """
        frames: list[LaneFrame] = []
        if self._body is not None:
            self._body_filled += count
            if self._body_filled == len(self._body):
                assert self._fields is not None  # noqa: S101 - set by _take before any body
                frames.append(_frame(self._fields, self._sizes, self._body))
                self._body = None
            return frames
        self._filled += count
        start = 0
        while start < self._filled and (used := self._take(start, frames)) > 0:
            start += used
        if start:
            rest = self._filled - start
            if rest:
                self._staging[:rest] = bytes(self._staging[start : self._filled])
            self._filled = rest
        return frames

    def _take(self, start: int, frames: list[LaneFrame]) -> int:
        """Consume one frame (or the head of a large one) at `start`; bytes used, 0 for none."""
        available = self._filled - start
        if available < _PREFIX.size:
            return 0
        fields: _Fields = _PREFIX.unpack_from(self._staging, start)
        kind, count, header_size = fields[0], fields[2], fields[3]
        if not HELLO <= kind <= ALONE or count > MAX_TENSORS or header_size > MAX_HEADER_BYTES:
            raise LaneError(
                f"expected a lane frame, found kind {kind} with {count} tensors "
                f"and a header of {header_size} bytes"
            )
        head = _PREFIX.size + 8 * count
        if available < head:
            return 0
        sizes = _sizes_struct(count).unpack_from(self._staging, start + _PREFIX.size)
        body_size = _body_size(header_size, sizes)
        if body_size > self._max_body_bytes:
            raise LaneError(
                f"expected a lane frame of at most {self._max_body_bytes} bytes, found {body_size}"
            )
        if head + body_size <= available:
            body_start = start + head
            body = memoryview(bytearray(self._staging[body_start : body_start + body_size]))
            frames.append(_frame(fields, sizes, body))
            return head + body_size
        self._fields, self._sizes = fields, sizes
        if head + body_size <= _STAGING_BYTES:
            return 0
        have = available - head
        self._body = np.empty(body_size, np.uint8).data
        self._body[:have] = self._staging[start + head : self._filled]
        self._body_filled = have
        return available


def _frame(fields: _Fields, sizes: Sequence[int], body: memoryview) -> LaneFrame:
    """Cut a body into header and tensors."""
    kind, priority, _, header_size, request_id, deadline_ns = fields
    offset = header_size + -header_size % ALIGNMENT
    tensors = []
    for size in sizes:
        tensors.append(body[offset : offset + size])
        offset += size + -size % ALIGNMENT
    return LaneFrame(kind, priority, request_id, deadline_ns, body[:header_size], tensors)


@cache
def _head_struct(count: int) -> struct.Struct:
    """Layout of the prefix and the tensors' lengths behind it."""
    return struct.Struct(f"{_PREFIX.format}{count}Q")


@cache
def _sizes_struct(count: int) -> struct.Struct:
    """Layout of the tensors' lengths; at most `MAX_TENSORS` different ones are ever asked for."""
    return struct.Struct(f"<{count}Q")


def _body_size(header_size: int, sizes: Sequence[int]) -> int:
    """Count the bytes behind the prefix; nothing is padded behind the last part."""
    if not sizes:
        return header_size
    total = header_size + -header_size % ALIGNMENT
    for size in sizes[:-1]:
        total += size + -size % ALIGNMENT
    return total + sizes[-1]
