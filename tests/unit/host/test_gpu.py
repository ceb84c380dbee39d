"""GPU figures, over a stand-in for the `pynvml` module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from superbrain.domain.health import GpuFacts
from superbrain.host import gpu


class NVMLError(Exception):
    """What every call of the library may raise."""


class Library:
    """Stands in for `pynvml` with two GPUs; `lacks` names the calls that are not supported."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *lacks: str) -> None:
        self.lacks = set(lacks)
        self.opened = 0

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        self._supported("nvmlInit")
        self.opened += 1

    def _supported(self, name: str) -> None:
        if name in self.lacks:
            raise NVMLError(name)

    def __getattr__(self, name: str) -> object:
        answers: dict[str, object] = {
            "nvmlDeviceGetCount": 2,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetName": b"NVIDIA L4",
            "nvmlDeviceGetUUID": "GPU-1",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=24, used=4),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=22),
            "nvmlDeviceGetTemperature": 51,
            "nvmlDeviceGetPowerUsage": 38_400,
        }

        def ask(*_arguments: object) -> object:
            self._supported(name)
            return answers[name]

        return ask


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    gpu._nvml.cache_clear()
    yield
    gpu._nvml.cache_clear()


def use(monkeypatch: pytest.MonkeyPatch, library: Library) -> Library:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_every_gpu_is_told_with_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library())
    first, second = gpu.gpu_facts()
    assert second.index == 1
    assert first == GpuFacts(
        index=0,
        name="NVIDIA L4",
        uuid="GPU-1",
        memory_total_bytes=24,
        memory_used_bytes=4,
        utilization_percent=22.0,
        temperature_celsius=51.0,
        power_watts=38.4,
    )


FIGURES = {
    "nvmlDeviceGetUUID": {"uuid"},
    "nvmlDeviceGetMemoryInfo": {"memory_total_bytes", "memory_used_bytes"},
    "nvmlDeviceGetUtilizationRates": {"utilization_percent"},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetPowerUsage": {"power_watts"},
}


@pytest.mark.parametrize(("call", "fields"), FIGURES.items(), ids=FIGURES.keys())
def test_a_figure_that_the_device_does_not_tell_is_none_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch, call: str, fields: set[str]
) -> None:
    use(monkeypatch, Library(call))
    facts = gpu.gpu_facts()[0]
    missing = {name for name in GpuFacts.__struct_fields__ if getattr(facts, name) is None}
    assert missing == fields


def test_a_gpu_without_a_name_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library("nvmlDeviceGetName"))
    assert gpu.gpu_facts()[0].name == "unknown GPU"


def test_a_gpu_that_is_lost_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library("nvmlDeviceGetHandleByIndex"))
    assert gpu.gpu_facts() == []


def test_no_driver_means_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library("nvmlInit"))
    assert gpu.gpu_facts() == []


def test_no_package_means_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.gpu_facts() == []


def test_the_library_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = use(monkeypatch, Library())
    gpu.gpu_facts()
    gpu.gpu_facts()
    assert library.opened == 1


def test_a_driver_that_is_loaded_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    library = use(monkeypatch, Library("nvmlInit"))
    gpu.gpu_facts()
    library.lacks.clear()
    assert len(gpu.gpu_facts()) == 2
