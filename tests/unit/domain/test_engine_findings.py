"""What a probe found, judged: with and without a GPU, with libraries that lie, crash and hang."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from superbrain.domain.diagnosis import Finding, Section, worst
from superbrain.domain.engine_findings import (
    clash,
    gpu_findings,
    rung_findings,
    rungs_of,
    runtime_findings,
)
from superbrain.domain.health import GpuFacts, GpuXid
from superbrain.domain.probe import (
    Cuda,
    CudaDevice,
    Engines,
    Library,
    NvidiaHardware,
    OnnxRuntimeBuild,
    ProviderTrial,
    Unanswered,
)
from tests.support.reports import NOON

NONE = NvidiaHardware()
CARD = NvidiaHardware(devices=1, driver="580.65.06")
L4 = CudaDevice("NVIDIA L4", "8.9", 23 << 30)
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
PLAIN = Engines(
    packages={"onnxruntime": "1.31.1"},
    cuda=Cuda(found=False),
    tensorrt=Library(missing=True),
    tensorrt_rtx=Library(missing=True),
    onnxruntime=OnnxRuntimeBuild("1.31.1", listed=[CPU]),
    providers={CPU: ProviderTrial(CPU, CPU)},
    rungs={"onnxruntime:cpu": ""},
)
FULL = msgspec.structs.replace(
    PLAIN,
    packages={"onnxruntime-gpu": "1.31.1"},
    cuda=Cuda(True, "13.1", devices=[L4]),
    tensorrt=Library("10.13.0"),
    onnxruntime=OnnxRuntimeBuild("1.31.1", listed=[CUDA, CPU]),
    providers={CUDA: ProviderTrial(CUDA, CUDA), CPU: ProviderTrial(CPU, CPU)},
)


def gpu(hardware: NvidiaHardware, engines: Engines, *gpus: GpuFacts) -> dict[str, Finding]:
    return {one.id: one for one in gpu_findings(hardware, engines, gpus, NOON)}


def runtimes(hardware: NvidiaHardware, engines: Engines) -> dict[str, Finding]:
    return {one.id: one for one in runtime_findings(hardware, engines)}


def test_a_host_without_a_gpu_is_calm() -> None:
    findings = [*gpu(NONE, PLAIN).values(), *runtimes(NONE, PLAIN).values()]
    assert worst([Section("all", findings)]) == "ok"
    assert not any(one.mend for one in findings)


def test_a_host_with_a_gpu_and_all_it_needs_is_well() -> None:
    findings = gpu(CARD, FULL, GpuFacts(0, "NVIDIA L4", pcie_width=16, pcie_width_max=16))
    assert {one.verdict for one in findings.values()} == {"ok"}
    assert "driver for CUDA 13.1: NVIDIA L4 (compute capability 8.9" in findings["cuda"].found
    assert runtimes(CARD, FULL)["provider_cuda"].verdict == "ok"


@pytest.mark.parametrize(
    ("hardware", "cuda", "name", "verdict", "said"),
    [
        (NvidiaHardware(devices=2), Cuda(found=False), "gpu_driver", "problem", "none is loaded"),
        (CARD, Cuda(found=False), "cuda", "problem", "not installed"),
        (CARD, Cuda(True, "13.1", "cuInit answers 803: restart"), "cuda", "problem", "803"),
        (NONE, Cuda(True, "13.1", "cuInit answers 100: none"), "cuda", "note", "100"),
        (NONE, Unanswered("ended its process with SIGABRT"), "cuda", "problem", "SIGABRT"),
        (
            NvidiaHardware(board=True),
            Cuda(True, "12.6", devices=[L4]),
            "gpu_driver",
            "ok",
            "system",
        ),
        (
            NvidiaHardware(devices=1, driver="580", closed=["/dev/nvidia0"]),
            Cuda(True, "13.1", devices=[L4]),
            "gpu_driver",
            "note",
            "/dev/nvidia0",
        ),
    ],
)
def test_a_driver_that_is_missing_or_broken_is_named(
    hardware: NvidiaHardware, cuda: Cuda | Unanswered, name: str, verdict: str, said: str
) -> None:
    found = gpu(hardware, msgspec.structs.replace(PLAIN, cuda=cuda))[name]
    assert found.verdict == verdict
    assert said in found.found
    assert found.mend or verdict == "ok"


def test_a_gpu_that_is_lost_is_a_problem_and_one_that_is_hot_a_note() -> None:
    lost = GpuFacts(0, "NVIDIA L4", lost="it has fallen off the bus")
    hot = GpuFacts(1, "NVIDIA T4", throttled_by=["temperature"])
    narrow = GpuFacts(2, "NVIDIA T4", pcie_width=4, pcie_width_max=16)
    findings = gpu(CARD, FULL, lost, hot, narrow)
    assert [findings[f"gpu_{n}"].verdict for n in range(3)] == ["problem", "note", "note"]
    assert "4 of 16 PCIe lanes" in findings["gpu_2"].found


def test_an_error_that_only_the_daemon_has_heard_of_is_told_too() -> None:
    xid = GpuXid(NOON - dt.timedelta(days=1), 48)
    assert "Xid 48" in gpu(CARD, FULL, GpuFacts(0, "NVIDIA L4", xids=[xid]))["gpu_0"].found


def test_figures_that_hang_the_driver_are_a_problem() -> None:
    why = Unanswered("did not answer within 60 s")
    (found,) = [one for one in gpu_findings(CARD, FULL, why, NOON) if one.id == "nvml"]
    assert (found.verdict, found.found) == ("problem", "the question did not answer within 60 s")


def test_two_onnxruntimes_are_a_clash_and_what_is_built_on_one_is_none() -> None:
    assert clash({"onnxruntime": "1", "onnxruntime-gpu": "1"}) == ["onnxruntime", "onnxruntime-gpu"]
    assert clash({"onnxruntime": "1", "onnxruntime-extensions": "1", "tensorrt": "1"}) == []
    both = msgspec.structs.replace(PLAIN, packages={"onnxruntime": "1", "onnxruntime-gpu": "1"})
    found = runtimes(NONE, both)["onnxruntime"]
    assert found.verdict == "problem"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in found.mend


def test_a_provider_that_is_listed_and_runs_on_the_processor_has_lied() -> None:
    trial = ProviderTrial(CUDA, CPU, said="libcudnn.so.9: cannot open shared object file")
    lying = msgspec.structs.replace(FULL, providers={CUDA: trial})
    found = runtimes(CARD, lying)["provider_cuda"]
    assert found.verdict == "problem"
    assert "ran on CPU: libcudnn.so.9" in found.found
    assert runtimes(NONE, lying)["provider_cuda"].verdict == "note", "nobody missed it"


@pytest.mark.parametrize(
    ("trial", "said"),
    [
        (Unanswered("ended its process with SIGILL"), "SIGILL"),
        (ProviderTrial(CPU, error="RuntimeError: no kernel"), "no kernel"),
        (ProviderTrial(CPU, CPU, error="expected [0. 2. 4.], computed [0. 0. 0.]"), "computed"),
    ],
)
def test_a_processor_that_cannot_compute_is_a_problem(
    trial: ProviderTrial | Unanswered, said: str
) -> None:
    broken = msgspec.structs.replace(PLAIN, providers={CPU: trial})
    found = runtimes(NONE, broken)["provider_cpu"]
    assert found.verdict == "problem"
    assert said in found.found


@pytest.mark.parametrize(
    ("build", "verdict"),
    [
        (OnnxRuntimeBuild(missing=True, error="No module named 'onnxruntime'"), "problem"),
        (OnnxRuntimeBuild(error="libstdc++.so.6: version not found"), "problem"),
        (Unanswered("ended its process with SIGSEGV"), "problem"),
    ],
)
def test_an_onnxruntime_that_is_not_usable_is_a_problem(
    build: OnnxRuntimeBuild | Unanswered, verdict: str
) -> None:
    engines = msgspec.structs.replace(PLAIN, onnxruntime=build, providers={})
    assert runtimes(NONE, engines)["onnxruntime"].verdict == verdict


@pytest.mark.parametrize(
    ("library", "hardware", "verdict", "said"),
    [
        (Library(missing=True), CARD, "note", "not installed"),
        (Library("9.2.0"), CARD, "note", "9.2.0"),
        (Library("11.4.0"), CARD, "ok", "11.4.0"),
        (Library(error="libnvinfer.so.10: cannot open"), NONE, "problem", "libnvinfer"),
        (Unanswered("did not answer within 60 s"), CARD, "problem", "60 s"),
    ],
)
def test_tensorrt_is_judged_by_what_this_host_could_do_with_it(
    library: Library | Unanswered, hardware: NvidiaHardware, verdict: str, said: str
) -> None:
    found = runtimes(hardware, msgspec.structs.replace(PLAIN, tensorrt=library))["tensorrt"]
    assert found.verdict == verdict
    assert said in found.found


def test_tensorrt_for_rtx_is_not_made_for_every_gpu() -> None:
    h100 = CudaDevice("NVIDIA H100", "9.0", 80 << 30)
    engines = msgspec.structs.replace(
        FULL, tensorrt_rtx=Library("1.7.1"), cuda=Cuda(True, "13.1", devices=[h100])
    )
    found = runtimes(CARD, engines)["tensorrt_rtx"]
    assert found.verdict == "note"
    assert "not made for compute capability 9.0" in found.found
    engines = msgspec.structs.replace(FULL, tensorrt_rtx=Library("1.7.1"))
    assert runtimes(CARD, engines)["tensorrt_rtx"].verdict == "ok"


def test_a_gpu_beside_a_build_for_processors_is_worth_a_note() -> None:
    found = runtimes(CARD, PLAIN)["provider_cuda"]
    assert found.verdict == "note"
    assert "superbrain[gpu]" in found.mend


def test_rungs_that_are_not_possible_for_the_same_reason_share_a_line() -> None:
    rungs = rungs_of(
        {"tensorrt:fp16": "no device", "tensorrt:fp32": "no device", "onnxruntime:cpu": ""}
    )
    first, second = rung_findings(rungs)
    assert (first.verdict, first.found) == ("note", "fp16, fp32: not here. no device")
    assert (second.verdict, second.found) == ("ok", "cpu: possible")


def test_a_host_that_can_run_nothing_has_a_problem() -> None:
    assert rung_findings(rungs_of({"onnxruntime:cpu": "not installed"}))[-1].verdict == "problem"
