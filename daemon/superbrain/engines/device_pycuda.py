"""Device memory by `pycuda`, for hosts that have it already; it cannot capture graphs.

It is opt-in: installing it needs the whole CUDA toolkit, and it has neither stream capture nor
memory pools. What it raises is translated here.
Source: https://documen.tician.de/pycuda/driver.html
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from superbrain.engines.device_memory import DeviceError
from superbrain.engines.port import RungUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.engines.port import Array

_NO_GRAPHS = "expected a backend that captures graphs, found pycuda, which cannot"


class PycudaDevice:
    """The first GPU, through pycuda."""

    supports_graphs = False

    def __init__(self) -> None:
        self._cuda = cuda = _import_library()
        try:
            cuda.init()
            self._context = cuda.Device(0).retain_primary_context()
            self._context.push()
            self._stream = cuda.Stream()
        except cuda.Error as error:
            raise RungUnavailable(
                f"expected an NVIDIA GPU that works, found: {error}",
                mend="Install the NVIDIA driver and see that nvidia-smi lists the GPU",
            ) from error
        self._allocated: dict[int, Any] = {}
        self._pinned: list[Array] = []

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def allocate(self, size_bytes: int) -> int:
        memory = self._ask(self._cuda.mem_alloc, max(1, size_bytes))
        self._allocated[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        self._ask(self._allocated.pop(address).free)

    def pinned(self, size_bytes: int) -> Array:
        memory: Array = self._ask(self._cuda.pagelocked_empty, max(1, size_bytes), np.uint8)
        self._pinned.append(memory)
        return memory

    def upload(self, address: int, host: Array) -> None:
        self._ask(self._cuda.memcpy_htod_async, address, host, self._stream)

    def download(self, host: Array, address: int) -> None:
        self._ask(self._cuda.memcpy_dtoh_async, host, address, self._stream)

    def synchronize(self) -> None:
        self._ask(self._stream.synchronize)

    def begin_capture(self) -> NoReturn:
        raise DeviceError(_NO_GRAPHS)

    def end_capture(self) -> NoReturn:
        raise DeviceError(_NO_GRAPHS)

    def launch(self, graph: Any) -> NoReturn:  # noqa: ANN401
        del graph
        raise DeviceError(_NO_GRAPHS)

    def close(self) -> None:
        for address in list(self._allocated):
            self.free(address)
        for memory in self._pinned:
            self._ask(memory.base.free)  # type: ignore[union-attr]
        self._pinned = []
        del self._stream  # which ends in the context that it is of
        self._context.pop()

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        try:
            return function(*arguments)
        except self._cuda.Error as error:
            raise DeviceError(f"pycuda: {error}") from error


def _import_library() -> Any:  # noqa: ANN401 - it ships no types
    try:
        return importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise RungUnavailable(
            f"expected the package pycuda, found none that works: {error}",
            mend="Unset SUPERBRAIN_DEVICE_MEMORY, or install pycuda with the CUDA toolkit",
        ) from error
