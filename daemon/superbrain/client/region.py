"""Memory that this program shares with workers: a sealed memfd, and whether a worker may write it.

It has no name on the host. A lane that needs it registers it by itself; the kernel frees it when
the last of this program and the workers that map it is gone.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os

import msgspec

from superbrain.transport.descriptor import Descriptor
from superbrain.wire import lane

# REGION frames bear a request id as requests do; theirs have this bit.
REGION_BIT = 1 << 63
_numbers = itertools.count(1)


class Region:
    """Shared memory of `size` bytes, zero at first; `number` is its name on every lane."""

    def __init__(self, size: int, *, writable: bool) -> None:
        self.number = next(_numbers)
        self.size = size
        self._writable = writable
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self._descriptor = Descriptor(os.memfd_create("superbrain-tensors", flags))
        os.ftruncate(self.fd, size)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.memory = memoryview(mmap.mmap(self.fd, size))

    @property
    def fd(self) -> int:
        """Its descriptor; -1 once it is closed."""
        return self._descriptor.fd

    def announcement(self) -> bytes:
        """Give the frame that registers it, to be sent with `fd`."""
        header = lane.Region(self.number, self.size, self._writable)
        request_id = REGION_BIT | self.number
        frame = lane.encode(lane.REGION, msgspec.json.encode(header), request_id=request_id)
        return bytes(frame[0])

    def release(self) -> list[lane.Data]:
        """Give the frame that ends its use on a lane."""
        header = msgspec.json.encode(lane.RegionRelease(self.number))
        return lane.encode(lane.RELEASE, header, request_id=REGION_BIT | self.number)

    def close(self) -> None:
        """Let go of it; arrays that lie in it keep it."""
        self._descriptor.close()
        self.memory = memoryview(b"")
