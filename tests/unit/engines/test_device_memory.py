"""The seam to CUDA where there is no driver: a typed error, whatever is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from superbrain.engines.device_cuda import CudaDevice
from superbrain.engines.device_memory import BACKEND, bytes_at, open_device
from superbrain.engines.device_pycuda import PycudaDevice
from superbrain.engines.port import RungUnavailable

no_gpu = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has a driver")
# What `CudaDevice` calls, beside the two classes below.
FUNCTIONS = [
    "cudaGetDeviceCount",
    "cudaSetDevice",
    "cudaStreamCreateWithFlags",
    "cudaStreamDestroy",
    "cudaMalloc",
    "cudaFree",
    "cudaHostAlloc",
    "cudaFreeHost",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "cudaStreamBeginCapture",
    "cudaStreamEndCapture",
    "cudaGraphInstantiate",
    "cudaGraphDestroy",
    "cudaGraphExecDestroy",
    "cudaGraphLaunch",
    "cudaGetErrorString",
    "cudaGetLastError",
    "cudaStreamNonBlocking",
    "cudaHostAllocDefault",
]


@no_gpu
def test_cuda_bindings_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BACKEND, raising=False)
    with pytest.raises(RungUnavailable, match=r"expected an NVIDIA GPU that works|cuda-bindings"):
        open_device()


def test_pycuda_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("pycuda"):
        pytest.skip("pycuda is installed")
    monkeypatch.setenv(BACKEND, "pycuda")
    with pytest.raises(RungUnavailable, match="expected the package pycuda"):
        open_device()


def test_another_backend_is_refused() -> None:
    with pytest.raises(RungUnavailable, match="expected SUPERBRAIN_DEVICE_MEMORY to be"):
        open_device("abacus")


def test_only_one_of_them_captures_graphs() -> None:
    assert CudaDevice.supports_graphs
    assert not PycudaDevice.supports_graphs


def test_every_function_that_is_called_exists() -> None:
    cuda = pytest.importorskip("cuda.bindings.runtime")
    source = Path(importlib.util.find_spec("superbrain.engines.device_cuda").origin).read_text()  # type: ignore[union-attr, arg-type]
    assert not [name for name in FUNCTIONS if name not in source]
    assert not [name for name in FUNCTIONS if not hasattr(cuda, name)]
    assert cuda.cudaMemcpyKind.cudaMemcpyHostToDevice != cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
    assert cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert int(cuda.cudaStream_t(5)) == 5


def test_host_memory_is_seen_where_it_is() -> None:
    import numpy as np

    there = np.arange(8, dtype=np.uint8)
    seen = bytes_at(there.ctypes.data, 8)
    seen[3] = 77
    assert there[3] == 77
