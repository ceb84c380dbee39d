"""What the NVIDIA driver says of its GPUs, asked of `libcuda` itself and nothing else.

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

from superbrain.domain.probe import CudaDevice
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


class Driver:
    """The driver's library, opened.

    Raises:
        OSError: it is not there, or does not load.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_LIBRARY)

    def start(self) -> int:
        """Start it; 0, or the CUresult that it answers instead."""
        return int(self._library.cuInit(0))

    def cuda(self) -> str:
        """Give the newest CUDA that it can run, such as `13.1`; empty when it does not say."""
        number = ctypes.c_int()
        if self._library.cuDriverGetVersion(ctypes.byref(number)):
            return ""
        return f"{number.value // 1000}.{number.value % 1000 // 10}"

    def devices(self) -> list[CudaDevice]:
        """Give the GPUs that it shows to this process, once it was started.

        Raises:
            RungUnavailable: it answers one of the questions with an error.
        """
        count = ctypes.c_int()
        self._ask("cuDeviceGetCount", ctypes.byref(count))
        return [self._device(ordinal) for ordinal in range(count.value)]

    def _device(self, ordinal: int) -> CudaDevice:
        device, memory = ctypes.c_int(), ctypes.c_size_t()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._ask("cuDeviceGet", ctypes.byref(device), ordinal)
        self._ask("cuDeviceGetName", name, _NAME_BYTES, device)
        self._ask("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        major, minor = self._attribute(_MAJOR, device), self._attribute(_MINOR, device)
        return CudaDevice(name.value.decode(errors="replace"), f"{major}.{minor}", memory.value)

    def _attribute(self, number: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._ask("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    def _ask(self, function: str, *arguments: object) -> None:
        if status := getattr(self._library, function)(*arguments):
            raise _broken(function, status)


def first_gpu() -> Gpu:
    """Ask the driver for the first GPU.

    Raises:
        RungUnavailable: there is no driver, it does not start, or it shows no GPU.
    """
    try:
        driver = Driver()
    except OSError as error:
        raise RungUnavailable(
            f"expected an NVIDIA GPU with its driver, found no {_LIBRARY} that loads: {error}",
            mend=_MEND,
        ) from error
    if status := driver.start():
        raise _broken("cuInit", status)
    devices = driver.devices()
    if not devices:
        raise RungUnavailable("expected an NVIDIA GPU, found a driver that shows none", mend=_MEND)
    major, minor = map(int, devices[0].compute_capability.split("."))
    return Gpu(devices[0].name, (major, minor), driver_release(), driver.cuda())


def _broken(function: str, status: int) -> RungUnavailable:
    said = f"expected a working NVIDIA driver, found that {function} answers {status}"
    return RungUnavailable(said, mend=_MEND)


def driver_release(path: Path = _MODULE) -> str:
    """Give the release of the loaded kernel module; empty where there is none to read."""
    try:
        found = _RELEASE.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""
