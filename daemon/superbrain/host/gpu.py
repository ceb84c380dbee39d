"""What NVIDIA's management library (NVML) says about the GPUs of this machine.

    gpus = Gpus()
    gpus.read()          # [GpuFacts(index=0, name="NVIDIA L4", …)]; [] where there is no GPU

No driver, no library, no permission: an empty list, calmly. Every figure is optional, because
integrated GPUs, partitions (MIG) and old drivers each refuse some. Nothing here raises.

The library is opened once, when that first succeeds, so a driver that is loaded later is found. A
GPU that was there and is gone stays in the list as lost: that it is missing is the news.
A call may take for ever when the driver hangs: gpu_watch.py asks from a thread of its own.
Source: https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import importlib
from typing import Any, Final

import msgspec

from superbrain.domain.health import GpuFacts, GpuProcess, GpuXid

KEPT_XIDS: Final = 8
#: Return codes that say that a device is gone or unusable, not that it lacks a figure.
_LOST: Final = {
    "NVML_ERROR_GPU_IS_LOST": "it has fallen off the bus, or cannot be reached any more",
    "NVML_ERROR_RESET_REQUIRED": "it needs a reset before it can be used again",
}
#: What holds the clocks down, by the name of its bit. An idle GPU is not held down.
_THROTTLES: Final = {
    "nvmlClocksThrottleReasonSwPowerCap": "power limit",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonSyncBoost": "another GPU of its group",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "temperature",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "temperature, by the hardware",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}


class Gpus:
    """The GPUs of this machine over time; to be used by one thread at a time."""

    def __init__(self) -> None:
        self._library: Any = None
        self._events: Any = None
        self._seen: dict[int, GpuFacts] = {}
        self._xids: dict[int, collections.deque[GpuXid]] = {}
        self._handles: dict[int, Any] = {}

    def read(self) -> list[GpuFacts]:
        """Give the figures of every GPU that is or was there, in the driver's order."""
        try:
            nvml = self._opened()
        except Exception:  # noqa: BLE001 - NVMLError exists only where the package is installed
            return []
        there = range(_ask(nvml, "nvmlDeviceGetCount") or 0)
        self._collect_xids(nvml)
        for index in there:
            self._read_one(nvml, index)
        for index in self._seen.keys() - set(there):
            self._lose(index, "the driver does not show it any more")
        return [
            msgspec.structs.replace(facts, xids=list(self._xids.get(index, ())))
            for index, facts in sorted(self._seen.items())
        ]

    def _opened(self) -> Any:  # noqa: ANN401 - the package ships no types
        # A failure is not kept: the next call tries again.
        if self._library is None:
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            self._library = nvml
            self._events = _ask(nvml, "nvmlEventSetCreate")
        return self._library

    def _read_one(self, nvml: Any, index: int) -> None:  # noqa: ANN401
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            nvml.nvmlDeviceGetName(device)  # a device that is lost has a handle, but no name
        except nvml.NVMLError as error:
            self._not_read(nvml, index, error)
            return
        if index not in self._handles:
            self._listen(nvml, device)
        self._handles[index] = device
        self._seen[index] = _read(nvml, index, device)

    def _not_read(self, nvml: Any, index: int, error: Any) -> None:  # noqa: ANN401
        code = getattr(error, "value", None)
        for name, why in _LOST.items():
            if code is not None and code == getattr(nvml, name, None):
                self._lose(index, why)
                return
        device = _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        if device is not None:  # it merely has no name
            self._seen[index] = _read(nvml, index, device)

    def _lose(self, index: int, why: str) -> None:
        before = self._seen.get(index) or GpuFacts(index=index, name="unknown GPU")
        self._seen[index] = GpuFacts(
            index=index,
            name=before.name,
            uuid=before.uuid,
            memory_total_bytes=before.memory_total_bytes,
            compute_capability=before.compute_capability,
            processes=before.processes,
            lost=why,
        )

    def _listen(self, nvml: Any, device: Any) -> None:  # noqa: ANN401
        """Have the driver tell what goes wrong with a device; not every one can."""
        kind = getattr(nvml, "nvmlEventTypeXidCriticalError", None)
        if self._events is not None and kind is not None:
            _ask(nvml, "nvmlDeviceRegisterEvents", device, kind, self._events)

    def _collect_xids(self, nvml: Any) -> None:  # noqa: ANN401
        """Take note of the errors that were reported since the last reading, without waiting."""
        while self._events is not None:
            told = _ask(nvml, "nvmlEventSetWait_v2", self._events, 0)
            if told is None:
                return
            if told.eventType == nvml.nvmlEventTypeXidCriticalError:
                self._note(_index_of(nvml, told.device), int(told.eventData))

    def _note(self, index: int | None, code: int) -> None:
        """A device that cannot be told from others any more is one that this happened to."""
        hit = [index] if index is not None else list(self._seen)
        for one in hit:
            kept = self._xids.setdefault(one, collections.deque(maxlen=KEPT_XIDS))
            kept.append(GpuXid(dt.datetime.now(dt.UTC), code))


def _index_of(nvml: Any, device: Any) -> int | None:  # noqa: ANN401
    index = _ask(nvml, "nvmlDeviceGetIndex", device)
    return None if index is None else int(index)


def _read(nvml: Any, index: int, device: Any) -> GpuFacts:  # noqa: ANN401
    ask = functools.partial(_about, nvml, device)
    memory = ask("nvmlDeviceGetMemoryInfo")
    use = ask("nvmlDeviceGetUtilizationRates")
    celsius = ask("nvmlDeviceGetTemperature", _constant(nvml, "NVML_TEMPERATURE_GPU", 0))
    return GpuFacts(
        index=index,
        name=_text(ask("nvmlDeviceGetName")) or "unknown GPU",
        uuid=_text(ask("nvmlDeviceGetUUID")),
        memory_total_bytes=None if memory is None else int(memory.total),
        memory_used_bytes=None if memory is None else int(memory.used),
        utilization_percent=None if use is None else float(use.gpu),
        temperature_celsius=None if celsius is None else float(celsius),
        power_watts=_watts(ask("nvmlDeviceGetPowerUsage")),
        compute_capability=_version(ask("nvmlDeviceGetCudaComputeCapability")),
        power_limit_watts=_watts(ask("nvmlDeviceGetEnforcedPowerLimit")),
        clock_mhz=ask("nvmlDeviceGetClockInfo", _constant(nvml, "NVML_CLOCK_SM", 1)),
        memory_clock_mhz=ask("nvmlDeviceGetClockInfo", _constant(nvml, "NVML_CLOCK_MEM", 2)),
        throttled_by=_throttles(nvml, device),
        ecc_corrected=_ecc(nvml, device, _constant(nvml, "NVML_MEMORY_ERROR_TYPE_CORRECTED", 0)),
        ecc_uncorrected=_ecc(
            nvml, device, _constant(nvml, "NVML_MEMORY_ERROR_TYPE_UNCORRECTED", 1)
        ),
        pcie_generation=ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_generation_max=ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth"),
        pcie_width_max=ask("nvmlDeviceGetMaxPcieLinkWidth"),
        mig=_is_partitioned(ask("nvmlDeviceGetMigMode")),
        processes=_processes(nvml, device),
    )


def _throttles(nvml: Any, device: Any) -> list[str] | None:  # noqa: ANN401
    """Name what holds the clocks down; the call was renamed in later drivers."""
    bits = _about(nvml, device, "nvmlDeviceGetCurrentClocksThrottleReasons")
    if bits is None:
        bits = _about(nvml, device, "nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:
        return None
    return [text for name, text in _THROTTLES.items() if bits & _constant(nvml, name, 0)]


def _ecc(nvml: Any, device: Any, kind: int) -> int | None:  # noqa: ANN401
    volatile = _constant(nvml, "NVML_VOLATILE_ECC", 0)
    count = _about(nvml, device, "nvmlDeviceGetTotalEccErrors", kind, volatile)
    return None if count is None else int(count)


def _processes(nvml: Any, device: Any) -> list[GpuProcess] | None:  # noqa: ANN401
    """Drivers up to 510 know the second version; the name without one is for equal versions."""
    found = _about(nvml, device, "nvmlDeviceGetComputeRunningProcesses_v3")
    if found is None:
        found = _about(nvml, device, "nvmlDeviceGetComputeRunningProcesses_v2")
    if found is None:
        return None
    return [GpuProcess(int(one.pid), _size(one.usedGpuMemory)) for one in found]


def _size(size_bytes: int | None) -> int | None:
    return None if size_bytes is None else int(size_bytes)


def _is_partitioned(modes: Any) -> bool | None:  # noqa: ANN401
    return None if modes is None else bool(modes[0])


def _version(parts: Any) -> str | None:  # noqa: ANN401
    return None if parts is None else ".".join(map(str, parts))


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _constant(nvml: Any, name: str, otherwise: int) -> int:  # noqa: ANN401
    return int(getattr(nvml, name, otherwise))


def _about(nvml: Any, device: Any, question: str, *more: object) -> Any:  # noqa: ANN401
    return _ask(nvml, question, device, *more)


def _ask(nvml: Any, question: str, *arguments: object) -> Any:  # noqa: ANN401
    """The answer, or None when there is none: not supported, lost, denied, not yet invented."""
    mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
    try:
        return getattr(nvml, question)(*arguments)
    except (nvml.NVMLError, mismatch, AttributeError):
        return None


def _text(value: str | bytes | None) -> str | None:
    """Old drivers' bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
