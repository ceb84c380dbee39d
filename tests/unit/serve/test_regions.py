"""Shared regions: what is refused before it is mapped, and what a peer's writing can change."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest

from superbrain.serve import regions as subject
from superbrain.serve.regions import RegionBudget, Regions
from superbrain.wire.errors import InvalidArgument, ResourceExhausted
from superbrain.wire.lane import Region, RegionRelease
from superbrain.wire.messages import RequestedOutput, SharedMemory

PAGE = mmap.PAGESIZE


@contextmanager
def memfd(size: int = PAGE, seals: int = fcntl.F_SEAL_SHRINK, flags: int = 0) -> Iterator[int]:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING | flags)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


def announced(number: int = 1, size: int = PAGE, *, writable: bool = False) -> memoryview:
    return memoryview(msgspec.json.encode(Region(number, size, writable)))


def registered(fd: int, *, writable: bool = False) -> Regions:
    regions = Regions()
    regions.register(announced(writable=writable), fd)
    return regions


# --- registering ------------------------------------------------------------------------------


def test_a_frame_without_a_descriptor_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="expected a file descriptor"):
        Regions().register(announced(), None)


def test_a_file_is_no_region() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGE)
        with pytest.raises(InvalidArgument, match="expected a memfd"):
            Regions().register(announced(), file.fileno())


def test_a_pipe_is_no_region() -> None:
    ends = os.pipe()
    try:
        with pytest.raises(InvalidArgument, match="expected a memfd"):
            Regions().register(announced(), ends[0])
    finally:
        for fd in ends:
            os.close(fd)


@pytest.mark.parametrize("seals", [0, fcntl.F_SEAL_GROW])
def test_memory_that_may_shrink_is_refused(seals: int) -> None:
    with memfd(seals=seals) as fd, pytest.raises(InvalidArgument, match="F_SEAL_SHRINK"):
        Regions().register(announced(), fd)


def test_huge_pages_are_refused() -> None:
    flags = os.MFD_HUGETLB | os.MFD_HUGE_2MB
    with memfd(2 << 20, flags=flags) as fd, pytest.raises(InvalidArgument, match="huge pages"):
        Regions().register(announced(), fd)


def test_a_region_smaller_than_announced_is_refused() -> None:
    with memfd(PAGE) as fd, pytest.raises(InvalidArgument, match=f"found {PAGE}"):
        Regions().register(announced(size=PAGE + 1), fd)


@pytest.mark.parametrize("size", [-1, 0, subject.MAX_REGION_BYTES + 1, 1 << 62])
def test_a_size_beyond_the_limits_is_refused(size: int) -> None:
    with memfd(subject.MAX_REGION_BYTES * 2) as fd, pytest.raises(InvalidArgument, match="bytes"):
        Regions().register(announced(size=size), fd)


@pytest.mark.parametrize("header", [b"", b"{}", b'{"region":1,"size_bytes":1,"more":2}'])
def test_a_header_that_does_not_fit_is_refused(header: bytes) -> None:
    with memfd() as fd, pytest.raises(InvalidArgument, match="a region"):
        Regions().register(memoryview(header), fd)


def test_memory_sealed_against_writing_is_not_registered_as_writable() -> None:
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
    with memfd(seals=seals) as fd, pytest.raises(InvalidArgument, match="expected writable memory"):
        registered(fd, writable=True)


def test_a_number_in_use_is_refused_until_it_is_released() -> None:
    with memfd() as fd:
        regions = registered(fd)
        with pytest.raises(InvalidArgument, match="in use"):
            regions.register(announced(), fd)
        regions.release(memoryview(msgspec.json.encode(RegionRelease(1))))
        regions.register(announced(), fd)


def test_one_region_too_many_is_refused() -> None:
    regions = Regions()
    with memfd() as fd:
        for number in range(subject.MAX_REGIONS):
            regions.register(announced(number), fd)
        with pytest.raises(ResourceExhausted):
            regions.register(announced(subject.MAX_REGIONS), fd)


def test_more_bytes_than_a_lane_may_share_are_refused() -> None:
    regions = Regions()
    size = subject.MAX_REGION_BYTES
    with memfd(size) as fd:
        for number in range(subject.MAX_LANE_BYTES // size):
            regions.register(announced(number, size), fd)
        with pytest.raises(ResourceExhausted):
            regions.register(announced(99, 1), fd)


def test_registered_memory_cannot_be_truncated() -> None:
    with memfd() as fd:
        regions = registered(fd)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        assert bytes(regions.tensor_bytes("x", "UINT8", SharedMemory(1, PAGE))) == bytes(PAGE)


# --- tensors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (SharedMemory(2, 4), "found 2"),
        (SharedMemory(1, PAGE + 1), "found bytes 0 to"),
        (SharedMemory(1, 4, PAGE), "found bytes 4096 to 4100"),
        (SharedMemory(1, 1 << 63, 1 << 63), "found bytes"),
        (SharedMemory(1, 4, 2), "multiple of 4"),
    ],
)
def test_a_place_that_does_not_fit_is_refused(place: SharedMemory, found: str) -> None:
    with memfd() as fd, pytest.raises(InvalidArgument, match=found):
        registered(fd).tensor_bytes("x", "FP32", place)


@pytest.mark.parametrize("datatype", ["BOOL", "INT32", "INT64", "UINT32", "UINT64", "BYTES"])
def test_what_native_code_checks_first_and_uses_later_is_copied(datatype: str) -> None:
    with memfd() as fd:
        data = registered(fd).tensor_bytes("x", datatype, SharedMemory(1, 64))
        os.pwrite(fd, b"\xff" * 64, 0)
    assert bytes(data) == bytes(64)


@pytest.mark.parametrize("datatype", ["UINT8", "INT8", "UINT16", "INT16", "FP16", "FP32", "FP64"])
def test_other_tensors_are_used_in_place_and_cannot_be_written(datatype: str) -> None:
    with memfd() as fd:
        data = registered(fd, writable=True).tensor_bytes("x", datatype, SharedMemory(1, 64))
        os.pwrite(fd, b"\xff" * 64, 0)
    assert bytes(data) == b"\xff" * 64
    assert not np.frombuffer(data, np.uint8).flags.writeable


# --- outputs ----------------------------------------------------------------------------------


def test_an_output_is_written_where_it_was_asked_for() -> None:
    with memfd() as fd:
        wanted = [RequestedOutput("y", SharedMemory(1, 100, 64)), RequestedOutput("z")]
        rooms = registered(fd, writable=True).rooms(wanted)
        assert rooms["y"].put(b"abc") == SharedMemory(1, 3, 64)
        assert list(rooms) == ["y"]
        assert os.pread(fd, 5, 63) == b"\0abc\0"


def test_an_output_that_does_not_fit_names_the_size_it_needs() -> None:
    with memfd() as fd:
        rooms = registered(fd, writable=True).rooms([RequestedOutput("y", SharedMemory(1, 2))])
        with pytest.raises(InvalidArgument, match="room for 3 bytes, found 2"):
            rooms["y"].put(b"abc")


def test_an_output_does_not_go_into_a_read_only_region() -> None:
    with memfd() as fd, pytest.raises(InvalidArgument, match="expected a writable region"):
        registered(fd).rooms([RequestedOutput("y", SharedMemory(1, 2))])


# --- all lanes together -------------------------------------------------------------------------


def test_all_lanes_together_hold_no_more_than_the_budget() -> None:
    budget = RegionBudget(most_regions=2, most_bytes=10 * PAGE)
    first, second = Regions(budget), Regions(budget)
    with memfd() as fd:
        first.register(announced(1), fd)
        second.register(announced(1), fd)
        with pytest.raises(ResourceExhausted, match=r"at most 2 regions .* of a worker, found 3"):
            second.register(announced(2), fd)
        first.close()  # what its peer held is free again
        second.register(announced(2), fd)
        second.release(memoryview(msgspec.json.encode(RegionRelease(1))))
        assert (budget.regions, budget.bytes) == (1, PAGE)


def test_the_budget_counts_bytes_too_and_nothing_that_was_refused() -> None:
    budget = RegionBudget(most_regions=100, most_bytes=PAGE)
    regions = Regions(budget)
    with memfd(2 * PAGE) as large, memfd(seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE) as sealed:
        with pytest.raises(ResourceExhausted, match="bytes on all lanes of a worker"):
            regions.register(announced(size=2 * PAGE), large)
        with pytest.raises(InvalidArgument, match="cannot be mapped"):
            regions.register(announced(writable=True), sealed)
    assert (budget.regions, budget.bytes) == (0, 0)


def test_a_worker_keeps_half_of_its_descriptors_for_all_else() -> None:
    budget = RegionBudget.of_this_process()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for _ in range(limit // 2):
        budget.take(0)
    with pytest.raises(ResourceExhausted):
        budget.take(0)
