"""Which errors of CUDA leave a process without its GPU, in the words of the libraries."""

from __future__ import annotations

import pytest

from superbrain.engines.gpu_errors import run_failed
from superbrain.engines.port import ExecutionFailed, GpuBroken

SEEN_ON_AN_H200 = (
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=vm ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/gpu_data_transfer.cc ; line=91 ; "
)
BREAKS = [
    SEEN_ON_AN_H200,
    "PyTorch failed on this input: CUDA error: device-side assert triggered",
    "the GPU failed on this input: cudaStreamSynchronize: unspecified launch failure",
    "cuMemcpyDtoHAsync failed: misaligned address",
    "CUDA failure 214: uncorrectable ECC error encountered ; GPU=0",
    "CUDA failure 719",
]
LEAVES = [
    "CUDA failure 2: out of memory ; GPU=0",
    "CUDA failure 7001: no such error",
    "CUDA failure 900: operation not permitted when stream is capturing",
    "CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR ; GPU=0",
    "Non-zero status code returned while running Reshape node",
    "",
]


@pytest.mark.parametrize("said", BREAKS)
def test_what_cuda_does_not_come_back_from_breaks_the_gpu(said: str) -> None:
    error = run_failed(said, "mend it", on_gpu=True)
    assert type(error) is GpuBroken
    assert (error.message, error.mend) == (said, "mend it")


@pytest.mark.parametrize("said", LEAVES)
def test_what_else_fails_is_one_run(said: str) -> None:
    assert type(run_failed(said, on_gpu=True)) is ExecutionFailed


@pytest.mark.parametrize("said", BREAKS)
def test_on_the_processor_no_gpu_breaks(said: str) -> None:
    """A node of a graph may bear any name, and its name is in the error."""
    assert type(run_failed(said, on_gpu=False)) is ExecutionFailed
