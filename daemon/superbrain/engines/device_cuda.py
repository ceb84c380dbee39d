"""Device memory by `cuda-bindings`: the CUDA runtime's functions, which return errors as values.

Source: https://nvidia.github.io/cuda-python/cuda-bindings/ and the CUDA runtime's reference.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from superbrain.engines.device_memory import DeviceError, bytes_at
from superbrain.engines.port import RungUnavailable

if TYPE_CHECKING:
    from superbrain.engines.port import Array

_MEND = "Install the NVIDIA driver, one that is new enough; nvidia-smi must list the GPU"


class CudaDevice:
    """The first GPU, through the CUDA runtime."""

    supports_graphs = True

    def __init__(self) -> None:
        self._cuda = cuda = _import_library()
        self._pinned: list[int] = []
        self._allocated: set[int] = set()
        self._graphs: list[Any] = []
        try:
            count = self._ask(cuda.cudaGetDeviceCount)
            if count < 1:
                raise RungUnavailable("expected an NVIDIA GPU, found none", mend=_MEND)
            self._ask(cuda.cudaSetDevice, 0)
            self._stream = self._ask(cuda.cudaStreamCreateWithFlags, cuda.cudaStreamNonBlocking)
        except DeviceError as error:
            raise RungUnavailable(
                f"expected an NVIDIA GPU that works, found: {error.message}", mend=_MEND
            ) from error

    @property
    def stream(self) -> int:
        return int(self._stream)

    def allocate(self, size_bytes: int) -> int:
        address = int(self._ask(self._cuda.cudaMalloc, max(1, size_bytes)))
        self._allocated.add(address)
        return address

    def free(self, address: int) -> None:
        self._allocated.discard(address)
        self._ask(self._cuda.cudaFree, address)

    def pinned(self, size_bytes: int) -> Array:
        size = max(1, size_bytes)
        flags = self._cuda.cudaHostAllocDefault
        address = int(self._ask(self._cuda.cudaHostAlloc, size, flags))
        self._pinned.append(address)
        return bytes_at(address, size)

    def upload(self, address: int, host: Array) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(address, host.ctypes.data, host.nbytes, kind)

    def download(self, host: Array, address: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(host.ctypes.data, address, host.nbytes, kind)

    def synchronize(self) -> None:
        self._ask(self._cuda.cudaStreamSynchronize, self._stream)

    def begin_capture(self) -> None:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._ask(self._cuda.cudaStreamBeginCapture, self._stream, mode)

    def end_capture(self) -> Any:  # noqa: ANN401
        recorded = self._ask(self._cuda.cudaStreamEndCapture, self._stream)
        try:
            graph = self._ask(self._cuda.cudaGraphInstantiate, recorded, 0)
        finally:
            self._ask(self._cuda.cudaGraphDestroy, recorded)
        self._graphs.append(graph)
        return graph

    def launch(self, graph: Any) -> None:  # noqa: ANN401
        self._ask(self._cuda.cudaGraphLaunch, graph, self._stream)

    def close(self) -> None:
        for graph in self._graphs:
            self._ask(self._cuda.cudaGraphExecDestroy, graph)
        for address in list(self._allocated):
            self.free(address)
        for address in self._pinned:
            self._ask(self._cuda.cudaFreeHost, address)
        self._ask(self._cuda.cudaStreamDestroy, self._stream)
        self._graphs, self._pinned = [], []

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:  # noqa: ANN401
        self._ask(self._cuda.cudaMemcpyAsync, target, source, size, kind, self._stream)

    def _ask(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401
        """Call one function; its value, or its error as an exception."""
        status, *values = function(*arguments)
        if status != self._cuda.cudaError_t.cudaSuccess:
            _, text = self._cuda.cudaGetErrorString(status)
            self._cuda.cudaGetLastError()  # an error that is looked at does not come again
            raise DeviceError(f"{function.__name__}: {text.decode(errors='replace')}")
        return values[0] if values else None


def _import_library() -> Any:  # noqa: ANN401 - its types change with every CUDA
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:
        raise RungUnavailable(
            f"expected the package cuda-bindings, found none that works: {error}",
            mend="Install it with: pip install 'superbrain[tensorrt]' (or [tensorrt-rtx])",
        ) from error
