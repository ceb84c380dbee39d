"""Device memory, streams and captured graphs: the one small seam between an engine and CUDA.

`open_device` gives what the environment variable SUPERBRAIN_DEVICE_MEMORY names, `cuda-bindings`
unless it says `pycuda`. Both give page-locked host memory and asynchronous copies on one stream;
only the first can capture graphs. Addresses are plain numbers, as TensorRT takes them. Whatever the
libraries raise or return is an `EngineError` here.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from superbrain.engines.port import EngineError, RungUnavailable

if TYPE_CHECKING:
    from superbrain.engines.port import Array

BACKEND: Final = "SUPERBRAIN_DEVICE_MEMORY"
DEFAULT: Final = "cuda-bindings"
OPT_IN: Final = "pycuda"


class DeviceError(EngineError):
    """A call of CUDA failed."""


class Device(Protocol):
    """The first GPU, with one stream on which everything happens in order.

    Not thread-safe. Closing it frees what it allocated.
    """

    @property
    def supports_graphs(self) -> bool:
        """Whether work can be captured once and launched as a whole afterwards."""

    @property
    def stream(self) -> int:
        """The handle of the stream."""

    def allocate(self, size_bytes: int) -> int:
        """Give the address of fresh device memory."""

    def free(self, address: int) -> None:
        """Give device memory back."""

    def pinned(self, size_bytes: int) -> Array:
        """Give page-locked host memory as bytes; it lives as long as the device."""

    def upload(self, address: int, host: Array) -> None:
        """Begin to copy page-locked memory to the device."""

    def download(self, host: Array, address: int) -> None:
        """Begin to copy from the device, into page-locked memory or, which is slower, other."""

    def synchronize(self) -> None:
        """Wait until everything on the stream is done."""

    def begin_capture(self) -> None:
        """Record what follows on the stream instead of doing it."""

    def end_capture(self) -> Any:  # noqa: ANN401 - the library's own
        """Stop recording, also after a failure; give what can be launched."""

    def launch(self, graph: Any) -> None:  # noqa: ANN401
        """Do what was recorded."""

    def close(self) -> None:
        """Free everything."""


def open_device(backend: str | None = None) -> Device:
    """Open the first GPU.

    Args:
        backend: cuda-bindings or pycuda; None means what the environment says.

    Raises:
        RungUnavailable: the library, the driver or the GPU is missing.
    """
    name = backend or os.environ.get(BACKEND) or DEFAULT
    if name == DEFAULT:
        from superbrain.engines.device_cuda import CudaDevice

        return CudaDevice()
    if name == OPT_IN:
        from superbrain.engines.device_pycuda import PycudaDevice

        return PycudaDevice()
    raise RungUnavailable(
        f"expected {BACKEND} to be {DEFAULT} or {OPT_IN}, found {name!r}",
        mend=f"Unset {BACKEND}: {DEFAULT} does more",
    )


def bytes_at(address: int, size_bytes: int) -> Array:
    """See host memory at an address as an array of bytes; whoever owns it keeps it alive."""
    buffer = (ctypes.c_uint8 * size_bytes).from_address(address)
    return np.ctypeslib.as_array(buffer)
