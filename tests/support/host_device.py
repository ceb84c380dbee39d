"""A device in the host's memory, as strict as CUDA: what is put on its stream is done later.

    device = HostDevice()
    device.upload(address, host)   # nothing has been copied yet
    device.synchronize()           # now it has

So a result that is read too early, a buffer that is used again too soon and memory that is freed
too soon are seen. Addresses are numbers that are never given twice. What is captured keeps the
addresses of that moment, and CUDA's rules for it: no allocation, no waiting, only page-locked
memory. Whatever breaks a rule is a `DeviceError`, where CUDA has an error too or would crash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from superbrain.engines.device_memory import DeviceError
from superbrain.engines.port import Array

Work = Callable[[], None]
_ALIGNMENT: Final = 256
_FIRST: Final = 0x7F00_0000_0000
_GARBAGE: Final = 0xA5


class HostDevice:
    """A `Device` without a GPU, with so much memory."""

    supports_graphs = True
    stream = 0x57E4

    def __init__(self, memory_bytes: int = 1 << 24) -> None:
        self.memory_bytes = memory_bytes
        self.copied_bytes = 0  # by copies that were begun or captured
        self._memory: dict[int, Array] = {}
        self._pinned: list[Array] = []
        self._next = _FIRST
        self._queue: list[Work] = []
        self._capture: list[Work] | None = None
        self._broken_capture = ""

    @property
    def held_bytes(self) -> int:
        """How much device memory is allocated."""
        return sum(one.nbytes for one in self._memory.values())

    @property
    def capturing(self) -> bool:
        """Whether the stream is being captured."""
        return self._capture is not None

    def allocate(self, size_bytes: int) -> int:
        self._not_in_capture("an allocation")
        size = max(1, size_bytes)
        if self.held_bytes + size > self.memory_bytes:
            raise DeviceError(f"out of memory: {size} bytes beside {self.held_bytes}")
        address = self._next
        self._next += -(-size // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT
        self._memory[address] = np.full(size, _GARBAGE, np.uint8)
        return address

    def free(self, address: int) -> None:
        self._not_in_capture("freeing")
        self._drain()  # as cudaFree does
        if self._memory.pop(address, None) is None:
            raise DeviceError(f"expected the address of an allocation, found {address:#x}")

    def pinned(self, size_bytes: int) -> Array:
        memory = np.full(max(1, size_bytes), _GARBAGE, np.uint8)
        self._pinned.append(memory)
        return memory

    def upload(self, address: int, host: Array) -> None:
        def copy() -> None:
            self.memory(address, host.nbytes)[...] = host

        self._copy(copy, host)

    def download(self, host: Array, address: int) -> None:
        def copy() -> None:
            host[...] = self.memory(address, host.nbytes)

        self._copy(copy, host)

    def synchronize(self) -> None:
        self._not_in_capture("waiting")
        self._drain()

    def begin_capture(self) -> None:
        if self.capturing:
            raise DeviceError("expected a stream that is not captured, found one that is")
        self._capture, self._broken_capture = [], ""

    def end_capture(self) -> list[Work]:
        if self._capture is None:
            raise DeviceError("expected a stream that is captured, found one that is not")
        recorded, self._capture = self._capture, None
        if self._broken_capture:
            raise DeviceError(f"the capture was invalidated by {self._broken_capture}")
        return recorded

    def launch(self, graph: Any) -> None:  # noqa: ANN401
        self._not_in_capture("a launch")
        self._queue += graph

    def close(self) -> None:
        self._drain()
        self._memory.clear()
        self._pinned.clear()

    # --- for what computes on it --------------------------------------------------------------

    def enqueue(self, work: Work) -> None:
        """Put work on the stream."""
        if self._capture is None:
            self._queue.append(work)
        else:
            self._capture.append(work)

    def memory(self, address: int, size_bytes: int) -> Array:
        """See device memory, also from within an allocation; only for what runs on the stream."""
        for start, memory in self._memory.items():
            if start <= address and address + size_bytes <= start + memory.nbytes:
                return memory[address - start : address - start + size_bytes]
        raise DeviceError(f"an illegal memory access of {size_bytes} bytes at {address:#x}")

    # --- the rules ----------------------------------------------------------------------------

    def _copy(self, copy: Work, host: Array) -> None:
        if host.nbytes and not any(np.may_share_memory(host, one) for one in self._pinned):
            self._not_in_capture("a copy of memory that is not page-locked")
        self.copied_bytes += host.nbytes
        self.enqueue(copy)

    def _drain(self) -> None:
        waiting, self._queue = self._queue, []
        for work in waiting:
            work()

    def _not_in_capture(self, what: str) -> None:
        if self._capture is not None:
            self._broken_capture = what
            raise DeviceError(f"{what} is not permitted while the stream is captured")
