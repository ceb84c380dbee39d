"""Shared memory of one lane: the regions its peer has registered, and tensors in them.

A region is a sealed memfd that came over the lane (SCM_RIGHTS); it has no name on the host, and
the kernel frees it when the last process that maps it is gone. Before it is mapped it is checked:
sealed against shrinking, so that no peer can make an access of ours fault by truncating it; of the
page size, because huge pages can be missing at the time of access; within the limits.

The peer may write while a request executes. So whatever native code checks first and uses later
(truth values, and integers that may be indices) is copied before anything looks at it, and so is
BYTES, whose lengths are checked. All other tensors are used where they are, read-only: a value that
changes there changes the peer's own answer and nothing else.

    regions = Regions()
    regions.register(frame.header, fd)
    pixels = regions.tensor_bytes("image", "UINT8", SharedMemory(1, 6_220_800))
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.wire.datatypes import BYTES, NUMPY_DTYPES
from superbrain.wire.errors import InvalidArgument, ResourceExhausted
from superbrain.wire.lane import Region, RegionRelease
from superbrain.wire.messages import SharedMemory, decode_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.serve.request_form import Usual
    from superbrain.wire.datatypes import TensorLayout
    from superbrain.wire.messages import RequestedOutput

MAX_REGION_BYTES: Final = 256 << 20
MAX_REGIONS: Final = 16
MAX_LANE_BYTES: Final = 1 << 30

_COPIED: Final = frozenset({"BOOL", "INT32", "INT64", "UINT32", "UINT64", BYTES})
_REGION = msgspec.json.Decoder(Region)
_RELEASE = msgspec.json.Decoder(RegionRelease)
_SEALING = "Make it with memfd_create(MFD_ALLOW_SEALING) and add F_SEAL_SHRINK before it is sent"


class RegionBudget:
    """What all lanes of one worker may hold together: bytes, and regions (a descriptor each)."""

    def __init__(self, most_regions: int, most_bytes: int) -> None:
        self._most_regions = most_regions
        self._most_bytes = most_bytes
        self.regions = 0
        self.bytes = 0

    @classmethod
    def of_this_process(cls) -> RegionBudget:
        """Half of the descriptors that it may have, and half of the host's memory."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(descriptors // 2, memory // 2)

    def take(self, size_bytes: int) -> None:
        """Make room for one more region.

        Raises:
            ResourceExhausted: all lanes together hold as much as they may.
        """
        if self.regions >= self._most_regions or self.bytes + size_bytes > self._most_bytes:
            raise ResourceExhausted(
                f"expected at most {self._most_regions} regions and {self._most_bytes} bytes on "
                f"all lanes of a worker, found {self.regions + 1} and {self.bytes + size_bytes}",
                mend="Other programs hold them: ask without shared memory, or try again later",
            )
        self.regions += 1
        self.bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Take note that a region is released."""
        self.regions -= 1
        self.bytes -= size_bytes


class Regions:
    """What one lane's peer has registered. Unmapped when this and every tensor in it is gone.

    `usual`: by header, how requests in these regions were answered; forgotten with any of them.
    """

    def __init__(self, budget: RegionBudget | None = None) -> None:
        self._views: dict[int, memoryview] = {}
        self._budget = budget or RegionBudget.of_this_process()
        self.usual: dict[bytes, Usual] = {}

    def register(self, header: memoryview, fd: int | None) -> None:
        """Map the region that a REGION frame announces; the descriptor stays the caller's.

        Raises:
            InvalidArgument: the header, or the memory, is not what it has to be.
            ResourceExhausted: the lane has as many regions, or bytes in them, as it may have.
        """
        region = decode_header(header, _REGION, "a region")
        if fd is None:
            raise InvalidArgument(
                f"region {region.region}: expected a file descriptor with the frame, found none",
                mend="Send it by SCM_RIGHTS with the first byte of the REGION frame",
            )
        self._check_limits(region)
        _check_memory(region, fd)
        self._budget.take(region.size_bytes)
        try:
            self._views[region.region] = _map(region, fd)
        except InvalidArgument:
            self._budget.give_back(region.size_bytes)
            raise

    def release(self, header: memoryview) -> None:
        """Forget a region; requests that still wait and refer to it will be refused.

        Raises:
            InvalidArgument: no such region.
        """
        number = decode_header(header, _RELEASE, "a region's release").region
        self._budget.give_back(len(self._known(number)))
        self.usual.clear()
        del self._views[number]

    def close(self) -> None:
        """Forget all regions; they are unmapped as soon as no tensor in them is used any more."""
        for view in self._views.values():
            self._budget.give_back(len(view))
        self.usual.clear()
        self._views = {}

    def tensor_bytes(self, name: str, datatype: str, place: SharedMemory) -> memoryview | bytes:
        """Give the bytes of an input tensor: read-only in place, or a private copy.

        Raises:
            InvalidArgument: no such region, beyond its end, or not aligned for the datatype.
        """
        view = self._part(name, place)
        dtype = NUMPY_DTYPES.get(datatype)
        if dtype is not None and place.offset % dtype.itemsize:
            raise InvalidArgument(
                f"tensor {name!r}: expected an offset that is a multiple of {dtype.itemsize} "
                f"for {datatype}, found {place.offset}"
            )
        return bytes(view) if datatype in _COPIED else view.toreadonly()

    def in_place(
        self, inputs: Sequence[tuple[TensorLayout, SharedMemory | None]]
    ) -> list[memoryview] | None:
        """Give the bytes of input tensors where they are; None if one is copied for its datatype.

        Raises:
            InvalidArgument: as `tensor_bytes`.
        """
        tensors: list[memoryview] = []
        for layout, place in inputs:
            if place is None or layout.datatype in _COPIED:
                return None
            data = self.tensor_bytes(layout.name, layout.datatype, place)
            tensors.append(memoryview(data))
        return tensors

    def rooms(self, outputs: Sequence[RequestedOutput]) -> dict[str, Room]:
        """Find the places that requested outputs have to be written to, by name.

        Raises:
            InvalidArgument: no such region, beyond its end, or registered as read-only.
        """
        return {
            output.name: self._room(output.name, output.parameters)
            for output in outputs
            if output.parameters is not None
        }

    def _room(self, name: str, place: SharedMemory) -> Room:
        view = self._part(name, place)
        if view.readonly:
            raise InvalidArgument(
                f"output {name!r}: expected a writable region, found region {place.region} "
                "read-only",
                mend='Register it with "writable": true',
            )
        return Room(name, place, view)

    def _part(self, name: str, place: SharedMemory) -> memoryview:
        view = self._known(place.region)
        end = place.offset + place.byte_size
        if end > len(view):
            raise InvalidArgument(
                f"tensor {name!r}: expected an end within the {len(view)} bytes of region "
                f"{place.region}, found bytes {place.offset} to {end}"
            )
        return view[place.offset : end]

    def _known(self, number: int) -> memoryview:
        view = self._views.get(number)
        if view is None:
            raise InvalidArgument(
                f"expected a shared memory region registered on this lane "
                f"({sorted(self._views) or 'none is'}), found {number}",
                mend="Shared memory is for lanes; through ZeroMQ send the bytes in a frame",
            )
        return view

    def _check_limits(self, region: Region) -> None:
        if region.region in self._views:
            raise InvalidArgument(
                f"expected a region number that is free, found {region.region} in use",
                mend="Release it first, or choose another number",
            )
        if not 0 < region.size_bytes <= MAX_REGION_BYTES:
            raise InvalidArgument(
                f"region {region.region}: expected 1 to {MAX_REGION_BYTES} bytes, "
                f"found {region.size_bytes}"
            )
        held = sum(map(len, self._views.values()))
        if len(self._views) >= MAX_REGIONS or held + region.size_bytes > MAX_LANE_BYTES:
            raise ResourceExhausted(
                f"expected at most {MAX_REGIONS} regions and {MAX_LANE_BYTES} bytes on a lane, "
                f"found {len(self._views) + 1} and {held + region.size_bytes}",
                mend="Release a region that is not needed",
            )


class Room:
    """Where one output has to go: `view` is all of it."""

    __slots__ = ("_name", "_place", "view")

    def __init__(self, name: str, place: SharedMemory, view: memoryview) -> None:
        self._name = name
        self._place = place
        self.view = view

    def put(self, data: memoryview | bytes) -> SharedMemory:
        """Write the output; say where it is.

        Raises:
            InvalidArgument: it needs more room.
        """
        size = len(data)
        if size > len(self.view):
            raise InvalidArgument(
                f"output {self._name!r}: expected room for {size} bytes, found {len(self.view)}",
                mend="Ask for it with more room, or without shared memory",
            )
        self.view[:size] = data
        return SharedMemory(self._place.region, size, self._place.offset)


def _check_memory(region: Region, fd: int) -> None:
    """Refuse what could fault under our hands; only then may it be mapped."""
    what = f"region {region.region}"
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        found = f"{what}: expected a memfd, found a descriptor without seals ({error.strerror})"
        raise InvalidArgument(found, mend=_SEALING) from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise InvalidArgument(
            f"{what}: expected a memfd sealed with F_SEAL_SHRINK, found seals {seals:#x}",
            mend=_SEALING,
        )
    if os.fstatvfs(fd).f_bsize != mmap.PAGESIZE:
        raise InvalidArgument(
            f"{what}: expected memory in pages of {mmap.PAGESIZE} bytes, found huge pages",
            mend="Leave MFD_HUGETLB out",
        )
    size = os.fstat(fd).st_size
    if size < region.size_bytes:
        raise InvalidArgument(
            f"{what}: expected a memfd of at least the announced {region.size_bytes} bytes, "
            f"found {size}"
        )


def _map(region: Region, fd: int) -> memoryview:
    access = mmap.ACCESS_WRITE if region.writable else mmap.ACCESS_READ
    try:
        return memoryview(mmap.mmap(fd, region.size_bytes, access=access))
    except OSError as error:
        kind = "writable" if region.writable else "readable"
        raise InvalidArgument(
            f"region {region.region}: expected {kind} memory, found it cannot be mapped so: "
            f"{error.strerror}"
        ) from error
