"""Every kind of device that there may be on this host: a fixture's parameters, and what opens them.

The host's own is always there. Those that reach a GPU are skipped, with the reason, where the
package or the GPU is missing; without a driver one test says so for all.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from superbrain.engines.device_memory import DEFAULT, OPT_IN, Device, open_device
from superbrain.engines.port import RungUnavailable
from tests.support.host_device import HostDevice

HOST: Final = "host"
# What a driver makes on servers, in WSL and on Jetson boards.
DRIVERS: Final = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-gpu")
BACKENDS: Final = (HOST, DEFAULT, OPT_IN) if any(Path(one).exists() for one in DRIVERS) else (HOST,)


@contextmanager
def opened(backend: str) -> Iterator[Device]:
    """Open a device and close it, when nothing that uses it is left."""
    device = HostDevice() if backend == HOST else _on_a_gpu(backend)
    try:
        yield device
    finally:
        gc.collect(1)  # an error that was caught holds what it was raised in
        device.close()


def _on_a_gpu(backend: str) -> Device:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycuda warns and then raises
            return open_device(backend)
    except RungUnavailable as error:
        pytest.skip(f"{backend}: {error.message}")
