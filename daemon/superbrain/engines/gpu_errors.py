"""Errors of CUDA after which a process cannot use its GPU any more, however often it tries.

CUDA's own description says of each that the process must be terminated and launched anew. The
libraries only give its number or its words on, in sentences of their own:

    CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; …      ONNX Runtime
    CUDA error: device-side assert triggered                                    PyTorch

Source: `cudaError` in https://docs.nvidia.com/cuda/cuda-runtime-api/
"""

from __future__ import annotations

import re
from typing import Final

from superbrain.engines.port import ExecutionFailed, GpuBroken

_NUMBERS: Final = (214, 219, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721)
_WORDS: Final = (
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected during the execution",
    "Invalid access of peer GPU memory over nvlink or a hardware error",
    "an illegal memory access was encountered",
    "the launch timed out and was terminated",
    "device-side assert triggered",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "unspecified launch failure",
    "tensor memory not completely freed",
)
_BROKEN: Final = re.compile(
    rf"CUDA failure ({'|'.join(map(str, _NUMBERS))})\b|{'|'.join(map(re.escape, _WORDS))}"
)


def run_failed(message: str, mend: str = "", *, on_gpu: bool) -> ExecutionFailed:
    """Make the error of one run of what a library said; `on_gpu`: where the graph runs.

    Returns:
        GpuBroken where this process cannot use the GPU any more, else ExecutionFailed.
    """
    kind = GpuBroken if on_gpu and _BROKEN.search(message) else ExecutionFailed
    return kind(message, mend=mend)
