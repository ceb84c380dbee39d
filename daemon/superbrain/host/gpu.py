"""What NVIDIA's management library (NVML) says about the GPUs of this machine.

No driver, no library, no permission: an empty list, calmly. Every figure is optional, because
integrated GPUs, partitions (MIG) and old drivers each refuse some. Nothing here raises.

The library is opened once, when that first succeeds, so a driver that is loaded later is found.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from superbrain.domain.health import GpuFacts


def gpu_facts() -> list[GpuFacts]:
    """The figures of every GPU that the driver shows, in its order."""
    try:
        nvml = _nvml()
    except Exception:  # noqa: BLE001 - NVMLError exists only where the package is installed
        return []
    count = _ask(nvml, nvml.nvmlDeviceGetCount)
    facts = (_read(nvml, index) for index in range(count or 0))
    return [gpu for gpu in facts if gpu is not None]


@functools.cache
def _nvml() -> Any:  # noqa: ANN401 - the package ships no types
    # A failure is not kept: the next call tries again.
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def _read(nvml: Any, index: int) -> GpuFacts | None:  # noqa: ANN401
    gpu = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
    if gpu is None:
        return None
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, gpu)
    use = _ask(nvml, nvml.nvmlDeviceGetUtilizationRates, gpu)
    milliwatts = _ask(nvml, nvml.nvmlDeviceGetPowerUsage, gpu)
    celsius = _ask(nvml, nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU)
    return GpuFacts(
        index=index,
        name=_text(_ask(nvml, nvml.nvmlDeviceGetName, gpu)) or "unknown GPU",
        uuid=_text(_ask(nvml, nvml.nvmlDeviceGetUUID, gpu)),
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_used_bytes=None if memory is None else int(memory.used),
        utilization_percent=None if use is None else float(use.gpu),
        temperature_celsius=None if celsius is None else float(celsius),
        power_watts=None if milliwatts is None else milliwatts / 1000,
    )


def _ask(nvml: Any, question: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """The answer, or None when this device or driver has none (not supported, lost, denied)."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes | None) -> str | None:
    """Old drivers' bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
