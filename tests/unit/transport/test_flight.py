"""The flight page: what a worker was executing, read by its peers, written by nobody else."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

import pytest

from superbrain.transport import flight
from superbrain.transport.flight import FlightPage


def test_the_page_tells_what_is_being_executed_and_for_whom() -> None:
    page = FlightPage()
    assert flight.executing(page.fd, 7) == frozenset()
    page.begin(7, 1 << 40)
    assert flight.executing(page.fd, 7) == frozenset({1 << 40})
    assert flight.executing(page.fd, 8) == frozenset()
    page.end()
    assert flight.executing(page.fd, 7) == frozenset()
    os.close(page.fd)


def test_a_peer_can_neither_write_nor_shrink_the_page() -> None:
    page = FlightPage()
    with pytest.raises(PermissionError):
        os.ftruncate(page.fd, 0)
    with pytest.raises(PermissionError):
        os.pwrite(page.fd, b"lies", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(page.fd, flight.SIZE)


def memory(content: bytes, seals: int) -> int:
    fd = os.memfd_create("page", os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, 1033, seals)
    return fd


@pytest.mark.parametrize(
    ("content", "seals"),
    [
        (bytes(flight.SIZE), 0),
        (bytes(flight.SIZE - 1), 2),
        (struct.pack("<Q", flight.MOST + 1).ljust(flight.SIZE, b"\1"), 2),
    ],
    ids=["not sealed", "too short", "a count beyond the page"],
)
def test_what_is_no_flight_page_tells_nothing(content: bytes, seals: int) -> None:
    fd = memory(content, seals)
    assert flight.executing(fd, 1) is None
    os.close(fd)


def test_a_pipe_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    assert flight.executing(reading, 1) is None
    os.close(reading)
    os.close(writing)
    assert flight.executing(None, 1) is None
