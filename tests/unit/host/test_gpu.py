"""GPU figures, over a stand-in for the `pynvml` module and over a driver's library made here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from superbrain.domain.health import GpuFacts, GpuProcess
from superbrain.host.gpu import KEPT_XIDS, Gpus
from tests.support.fake_driver import L4, FakeDriver

XID = 8


class NVMLError(Exception):
    """What every call of the library may raise."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value


class Library:
    """Stands in for `pynvml` with two GPUs; `lacks` names the calls that are not supported."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16
    nvmlEventTypeXidCriticalError = XID  # noqa: N815 - the library's name
    nvmlClocksThrottleReasonGpuIdle = 1  # noqa: N815
    nvmlClocksThrottleReasonSwPowerCap = 4  # noqa: N815
    nvmlClocksThrottleReasonHwThermalSlowdown = 64  # noqa: N815

    def __init__(self, *lacks: str) -> None:
        self.lacks = set(lacks)
        self.opened = 0
        self.count = 2
        self.lost: dict[int, int] = {}
        self.told: list[SimpleNamespace] = []

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        self._supported("nvmlInit")
        self.opened += 1

    def nvmlDeviceGetName(self, device: int) -> bytes:  # noqa: N802
        if device in self.lost:
            raise NVMLError(self.lost[device])
        self._supported("nvmlDeviceGetName")
        return b"NVIDIA L4"

    def nvmlEventSetWait_v2(self, _events: object, timeout_ms: int) -> SimpleNamespace:  # noqa: N802
        assert timeout_ms == 0
        if not self.told:
            raise NVMLError("timed out")
        return self.told.pop(0)

    def _supported(self, name: str) -> None:
        if name in self.lacks:
            raise NVMLError(3)

    def __getattr__(self, name: str) -> object:
        answers: dict[str, object] = {
            "nvmlDeviceGetCount": self.count,
            "nvmlDeviceGetUUID": "GPU-1",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=24, used=4),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=22),
            "nvmlDeviceGetTemperature": 51,
            "nvmlDeviceGetPowerUsage": 38_400,
            "nvmlDeviceGetCudaComputeCapability": (8, 9),
            "nvmlDeviceGetEnforcedPowerLimit": 72_000,
            "nvmlDeviceGetClockInfo": 2_040,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 1 | 4 | 64,
            "nvmlDeviceGetTotalEccErrors": 0,
            "nvmlDeviceGetCurrPcieLinkGeneration": 4,
            "nvmlDeviceGetMaxPcieLinkGeneration": 4,
            "nvmlDeviceGetCurrPcieLinkWidth": 8,
            "nvmlDeviceGetMaxPcieLinkWidth": 16,
            "nvmlDeviceGetMigMode": [0, 0],
            "nvmlDeviceGetComputeRunningProcesses_v3": [SimpleNamespace(pid=7, usedGpuMemory=3)],
            "nvmlEventSetCreate": "set",
            "nvmlDeviceRegisterEvents": None,
        }

        itself = {"nvmlDeviceGetHandleByIndex", "nvmlDeviceGetIndex"}
        if name not in answers.keys() | itself:
            raise AttributeError(name)

        def ask(*arguments: object) -> object:
            self._supported(name)
            if name in itself:
                return arguments[0]
            return answers[name]

        return ask


def use(monkeypatch: pytest.MonkeyPatch, library: Library) -> Library:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return library


def test_every_gpu_is_told_with_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library())
    first, second = Gpus().read()
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
        compute_capability="8.9",
        power_limit_watts=72.0,
        clock_mhz=2_040,
        memory_clock_mhz=2_040,
        throttled_by=["power limit", "temperature, by the hardware"],
        ecc_corrected=0,
        ecc_uncorrected=0,
        pcie_generation=4,
        pcie_generation_max=4,
        pcie_width=8,
        pcie_width_max=16,
        mig=False,
        processes=[GpuProcess(7, 3)],
    )


FIGURES = {
    "nvmlDeviceGetUUID": {"uuid"},
    "nvmlDeviceGetMemoryInfo": {"memory_total_bytes", "memory_used_bytes"},
    "nvmlDeviceGetUtilizationRates": {"utilization_percent"},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetPowerUsage": {"power_watts"},
    "nvmlDeviceGetClockInfo": {"clock_mhz", "memory_clock_mhz"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_corrected", "ecc_uncorrected"},
    "nvmlDeviceGetMigMode": {"mig"},
    "nvmlDeviceGetComputeRunningProcesses_v3": {"processes"},
    "nvmlDeviceGetMaxPcieLinkWidth": {"pcie_width_max"},
}


@pytest.mark.parametrize(("call", "fields"), FIGURES.items(), ids=FIGURES.keys())
def test_a_figure_that_the_device_does_not_tell_is_none_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch, call: str, fields: set[str]
) -> None:
    use(monkeypatch, Library(call))
    facts = Gpus().read()[0]
    missing = {name for name in GpuFacts.__struct_fields__ if getattr(facts, name) is None}
    assert missing == fields


def test_a_gpu_without_a_name_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library("nvmlDeviceGetName"))
    assert Gpus().read()[0].name == "unknown GPU"


@pytest.mark.parametrize(("code", "said"), [(15, "fallen off the bus"), (16, "needs a reset")])
def test_a_gpu_that_is_lost_stays_in_the_list_and_says_so(
    monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    library = use(monkeypatch, Library())
    gpus = Gpus()
    gpus.read()
    library.lost[1] = code
    first, second = gpus.read()
    assert (first.lost, second.name) == ("", "NVIDIA L4")
    assert said in second.lost
    assert second.processes == [GpuProcess(7, 3)], "whose it was"
    library.lost.clear()
    assert gpus.read()[1].lost == ""


def test_a_gpu_that_the_driver_no_longer_shows_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    library = use(monkeypatch, Library())
    gpus = Gpus()
    gpus.read()
    library.count = 1
    assert [bool(one.lost) for one in gpus.read()] == [False, True]


def test_errors_that_the_driver_reports_are_kept_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = use(monkeypatch, Library())
    gpus = Gpus()
    gpus.read()
    library.told = [SimpleNamespace(eventType=XID, eventData=n, device=1) for n in range(20)]
    library.told.append(SimpleNamespace(eventType=1, eventData=99, device=1))
    first, second = gpus.read()
    assert first.xids == []
    assert [xid.code for xid in second.xids] == list(range(20))[-KEPT_XIDS:]
    assert len(gpus.read()[1].xids) == KEPT_XIDS, "they stay"


def test_no_driver_means_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Library("nvmlInit"))
    assert Gpus().read() == []


def test_no_package_means_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Gpus().read() == []


def test_the_library_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = use(monkeypatch, Library())
    gpus = Gpus()
    gpus.read()
    gpus.read()
    assert library.opened == 1


def test_a_driver_that_is_loaded_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    library = use(monkeypatch, Library("nvmlInit"))
    gpus = Gpus()
    gpus.read()
    library.lacks.clear()
    assert len(gpus.read()) == 2


# --- over a real library --------------------------------------------------------------------------

READINGS = """
import sys, msgspec
from superbrain.host.gpu import Gpus
gpus = Gpus()
for _ in sys.stdin:
    sys.stdout.write(msgspec.json.encode(gpus.read()).decode() + "\\n")
    sys.stdout.flush()
"""


class Reader:
    """A process that reads the figures once for each line it gets."""

    def __init__(self, driver: FakeDriver) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", READINGS],
            env=driver.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def read(self) -> list[dict[str, Any]]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


def test_a_real_library_tells_what_it_can_and_a_gpu_falls_off_the_bus(tmp_path: Path) -> None:
    driver = FakeDriver(tmp_path)
    with Reader(driver) as reader:
        driver.say(driver=0)
        assert reader.read() == [], "no driver is loaded yet"
        driver.say(**L4, throttles=4, ecc_corrected=2, ecc_uncorrected=0, pid=7, pid_mib=3)
        (facts,) = reader.read()
        assert (facts["name"], facts["uuid"]) == ("Fake L4", "GPU-fake")
        assert (facts["temperature_celsius"], facts["power_watts"]) == (51.0, 38.4)
        assert (facts["compute_capability"], facts["throttled_by"]) == ("8.9", ["power limit"])
        assert (facts["ecc_corrected"], facts["ecc_uncorrected"]) == (2, 0)
        assert facts["processes"] == [{"pid": 7, "memory_bytes": 3 << 20}]
        assert facts["pcie_width"] is None, "not supported"
        assert facts["mig"] is None
        driver.say(**L4, xid=79, serial=1)
        assert [xid["code"] for xid in reader.read()[0]["xids"]] == [79]
        driver.say(lost=1)
        (facts,) = reader.read()
        assert "fallen off the bus" in facts["lost"]
        assert (facts["name"], facts["temperature_celsius"]) == ("Fake L4", None)
        driver.say(**L4)
        assert reader.read()[0]["lost"] == ""


def test_a_library_that_lacks_most_functions_still_names_its_gpu(tmp_path: Path) -> None:
    driver = FakeDriver(tmp_path, options=("-DOLD",))
    with Reader(driver) as reader:
        driver.say(**L4)
        (facts,) = reader.read()
        assert facts["name"] == "Fake L4"
        assert {facts[name] for name in ("uuid", "power_watts", "processes", "mig")} == {None}
