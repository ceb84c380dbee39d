"""A descriptor is closed once, whoever does it, and its number is then somebody else's."""

from __future__ import annotations

import os
from contextlib import suppress

from superbrain.transport.descriptor import Descriptor


def is_open(fd: int) -> bool:
    with suppress(OSError):
        os.fstat(fd)
        return True
    return False


def test_it_is_closed_with_its_owner() -> None:
    owned = Descriptor(fd := os.eventfd(0))
    assert is_open(fd)
    del owned
    assert not is_open(fd)


def test_a_number_that_is_used_again_is_left_alone() -> None:
    owned = Descriptor(fd := os.eventfd(0))
    owned.close()
    assert owned.fd == -1
    assert os.eventfd(0) == fd  # the lowest that is free
    owned.close()
    del owned
    assert is_open(fd)
    os.close(fd)


def test_the_end_of_the_process_is_no_reason_to_close_it() -> None:
    owned = Descriptor(os.eventfd(0))
    assert not owned._close.atexit
    owned.close()
