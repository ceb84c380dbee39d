"""What the NVIDIA driver says of the first GPU, asked of `libcuda` itself and nothing else.

Libraries that stand on CUDA crash, hang or lie where there is no driver, so whoever is about to
touch one asks here first. Nothing is imported; the driver's library is opened, which only a process
that may be lost should do.
Source: https://docs.nvidia.com/cuda/cuda-driver-api/
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Final, NamedTuple

from superbrain.engines.port import RungUnavailable

_LIBRARY: Final = "libcuda.so.1"
_MAJOR: Final = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_MINOR: Final = 76
_NAME_BYTES: Final = 256
_MODULE: Final = Path("/proc/driver/nvidia/version")
_RELEASE: Final = re.compile(r"Kernel Module +(?:for \S+ +)?([0-9]+(?:\.[0-9]+)+)")
_MEND: Final = "Install the NVIDIA driver and see that nvidia-smi lists the GPU"


class Gpu(NamedTuple):
    """The first GPU: its name, compute capability, the driver's release and its newest CUDA."""

    name: str
    capability: tuple[int, int]
    driver: str
    cuda: str


def first_gpu() -> Gpu:
    """Ask the driver for the first GPU.

    Raises:
        RungUnavailable: there is no driver, it does not start, or it shows no GPU.
    """
    library = _open()
    _ask(library, "cuInit", 0)
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _ask(library, "cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        raise RungUnavailable("expected an NVIDIA GPU, found a driver that shows none", mend=_MEND)
    _ask(library, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _ask(library, "cuDeviceGetName", name, _NAME_BYTES, device)
    capability = (_attribute(library, _MAJOR, device), _attribute(library, _MINOR, device))
    _ask(library, "cuDriverGetVersion", ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), capability, driver_release(), cuda)


def driver_release(path: Path = _MODULE) -> str:
    """Give the release of the loaded kernel module; empty where there is none to read."""
    try:
        found = _RELEASE.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def _open() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise RungUnavailable(
            f"expected an NVIDIA GPU with its driver, found no {_LIBRARY} that loads: {error}",
            mend=_MEND,
        ) from error


def _attribute(library: ctypes.CDLL, number: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _ask(library, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def _ask(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    status = getattr(library, function)(*arguments)
    if status != 0:
        raise RungUnavailable(
            f"expected a working NVIDIA driver, found that {function} answers {status}", mend=_MEND
        )
