"""What the probe found of GPUs, runtimes and rungs, judged: what is missing, and what would help.

Pure. A library that is absent is no fault on a host that has no GPU for it; one that crashes, hangs
or says that it can what it cannot is one everywhere.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from superbrain.domain import gpu_rules
from superbrain.domain.diagnosis import Finding, RungFinding, note, ok, problem
from superbrain.domain.probe import Cuda, Library, OnnxRuntimeBuild, Unanswered
from superbrain.domain.quantities import bytes_text

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

    from superbrain.domain.health import GpuFacts
    from superbrain.domain.probe import Engines, NvidiaHardware, ProviderTrial

PROCESSOR: Final = "CPUExecutionProvider"
CUDA_PROVIDER: Final = "CUDAExecutionProvider"
TENSORRT_MAJORS: Final = ("10", "11")
RTX_CAPABILITIES: Final = ("7.5", "8.", "12.")
#: Distributions that write the files of one package, `onnxruntime`; others have their own.
_BESIDE: Final = ("onnxruntime-extensions", "onnxruntime-genai", "onnxruntime-tools")
_DRIVER_MEND: Final = (
    "install the driver that your system offers for it (Debian: nvidia-driver), restart the "
    "machine, and look whether nvidia-smi lists it"
)
_GPU_BUILD: Final = "pip uninstall -y onnxruntime; pip install 'superbrain[gpu]'"


def gpu_findings(
    hardware: NvidiaHardware,
    engines: Engines,
    gpus: Sequence[GpuFacts] | Unanswered,
    now: dt.datetime,
) -> list[Finding]:
    """Judge driver, CUDA and every GPU."""
    findings = [_driver(hardware, engines), _cuda(hardware, engines.cuda)]
    if isinstance(gpus, Unanswered):
        mend = f"the driver's own library fails: {_DRIVER_MEND}"
        return [*findings, problem("nvml", "GPU figures", f"the question {gpus.why}", mend)]
    troubles = gpu_rules.troubles(gpus, now)
    for gpu in gpus:
        findings += _gpu(gpu, [one for one in troubles if one.gpu == gpu.index])
    return findings


def runtime_findings(hardware: NvidiaHardware, engines: Engines) -> list[Finding]:
    """Judge ONNX Runtime, its providers, and the TensorRTs."""
    return [
        _onnxruntime(engines),
        *_providers(hardware, engines),
        _tensorrt(hardware, engines),
        _tensorrt_rtx(hardware, engines),
    ]


def rung_findings(rungs: Sequence[RungFinding]) -> list[Finding]:
    """Say which rungs this host can make; those that cannot be for the same reason share a line."""
    findings = []
    for (runtime, why_not), group in itertools.groupby(rungs, _runtime_and_reason):
        variants = [rung.rung.partition(":")[2] for rung in group]
        named = ", ".join(variants)
        name = f"rung_{runtime}_{variants[0]}"
        if why_not:
            findings.append(note(name, runtime, f"{named}: not here. {why_not}"))
        else:
            findings.append(ok(name, runtime, f"{named}: possible"))
    if not any(rung.possible for rung in rungs):
        mend = "pip install 'superbrain[cpu]' brings the one that every host can run"
        findings.append(problem("rungs", "rungs", "no rung is possible on this host", mend))
    return findings


def rungs_of(why_not: Mapping[str, str]) -> list[RungFinding]:
    """Give each rung with why it cannot be."""
    return [RungFinding(rung, not reason, reason) for rung, reason in why_not.items()]


def clash(packages: Mapping[str, str]) -> list[str]:
    """Give the installed packages that have written over each other; empty for no clash."""
    runtimes = [
        name for name in packages if name.startswith("onnxruntime") and not name.startswith(_BESIDE)
    ]
    return runtimes if len(runtimes) > 1 else []


# --- GPUs ---------------------------------------------------------------------------------------


def _driver(hardware: NvidiaHardware, engines: Engines) -> Finding:
    shown = isinstance(engines.cuda, Cuda) and bool(engines.cuda.devices)
    if hardware.driver:
        text = f"version {hardware.driver}"
        if hardware.closed:
            mend = "the service's user needs them: see systemd/superbraind.service.d/gpu.conf"
            closed = ", ".join(hardware.closed)
            return note("gpu_driver", "GPU driver", f"{text}; not for this user: {closed}", mend)
        return ok("gpu_driver", "GPU driver", text)
    if not hardware.there and not shown:
        return ok("gpu_driver", "GPU", "no NVIDIA GPU in this machine: graphs run on its processor")
    if hardware.board or shown:
        return ok("gpu_driver", "GPU driver", "part of the system")
    text = f"none is loaded for the {hardware.devices} NVIDIA GPU(s) in this machine"
    return problem("gpu_driver", "GPU driver", text, _DRIVER_MEND)


def _cuda(hardware: NvidiaHardware, cuda: Cuda | Unanswered) -> Finding:
    if isinstance(cuda, Unanswered):
        mend = f"libcuda.so.1 does not fit the loaded driver: {_DRIVER_MEND}"
        return problem("cuda", "CUDA", f"the driver's library {cuda.why}", mend)
    if not cuda.found:
        if hardware.there:
            return problem("cuda", "CUDA", "libcuda.so.1 is not installed", _DRIVER_MEND)
        return ok("cuda", "CUDA", "no driver library, and none is needed without a GPU")
    if cuda.error or not cuda.devices:
        text = f"driver library {cuda.version}: {cuda.error or 'it shows no device'}".strip()
        if hardware.there:
            return problem("cuda", "CUDA", text, _DRIVER_MEND)
        return note("cuda", "CUDA", text, "nothing, if this host is to have no GPU")
    devices = ", ".join(
        f"{one.name} (compute capability {one.compute_capability}, {bytes_text(one.memory_bytes)})"
        for one in cuda.devices
    )
    return ok("cuda", "CUDA", f"driver for CUDA {cuda.version}: {devices}")


def _gpu(gpu: GpuFacts, troubles: Sequence[gpu_rules.GpuTrouble]) -> Iterator[Finding]:
    name, subject = f"gpu_{gpu.index}", f"GPU {gpu.index}"
    if not troubles:
        yield _width(gpu, name, subject)
    for trouble in troubles:
        make = problem if trouble.leave else note
        yield make(name, subject, trouble.message, trouble.mend)


def _width(gpu: GpuFacts, name: str, subject: str) -> Finding:
    now, most = gpu.pcie_width, gpu.pcie_width_max
    if now is not None and most is not None and now < most:
        mend = "see that it sits in a slot of its width, and look at its contacts"
        text = f"{gpu_text(gpu)}; it uses {now} of {most} PCIe lanes"
        return note(name, subject, text, mend)
    return ok(name, subject, gpu_text(gpu))


def gpu_text(gpu: GpuFacts) -> str:
    """Put the figures that a GPU tells on one line."""
    parts = [gpu.name]
    if gpu.memory_used_bytes is not None and gpu.memory_total_bytes is not None:
        used, total = bytes_text(gpu.memory_used_bytes), bytes_text(gpu.memory_total_bytes)
        parts.append(f"{used} of {total} used")
    figures = {
        "{:.0f} % busy": gpu.utilization_percent,
        "{:.0f} °C": gpu.temperature_celsius,
        "{:.0f} W": gpu.power_watts,
        "{} MHz": gpu.clock_mhz,
        "{} memory errors corrected": gpu.ecc_corrected or None,
    }
    parts += [form.format(value) for form, value in figures.items() if value is not None]
    if gpu.throttled_by:
        parts.append(f"held down by: {', '.join(gpu.throttled_by)}")
    if gpu.mig:
        parts.append("partitioned (MIG)")
    return ", ".join(parts)


# --- runtimes -----------------------------------------------------------------------------------


def _onnxruntime(engines: Engines) -> Finding:
    name, subject, build = "onnxruntime", "ONNX Runtime", engines.onnxruntime
    if both := clash(engines.packages):
        mend = (
            f"pip uninstall -y {' '.join(both)}; then one of them: pip install 'superbrain[cpu]' "
            "or 'superbrain[gpu]'"
        )
        text = f"{' and '.join(both)} are installed over each other: which one runs is chance"
        return problem(name, subject, text, mend)
    if isinstance(build, Unanswered):
        return problem(name, subject, f"its import {build.why}", _reinstall("onnxruntime"))
    if build.missing:
        return problem(name, subject, "not installed", "pip install 'superbrain[cpu]'")
    if build.error:
        return problem(name, subject, build.error, _reinstall("onnxruntime"))
    return ok(name, subject, f"{build.version}, lists {', '.join(map(_short, build.listed))}")


def _providers(hardware: NvidiaHardware, engines: Engines) -> Iterator[Finding]:
    for provider, trial in engines.providers.items():
        yield _provider(provider, trial, with_gpu=hardware.there)
    build = engines.onnxruntime
    gpu_build = isinstance(build, OnnxRuntimeBuild) and CUDA_PROVIDER in build.listed
    if hardware.there and not gpu_build:
        text = "this build of ONNX Runtime has no CUDA"
        yield note("provider_cuda", "on CUDA", text, _GPU_BUILD)


def _provider(provider: str, trial: ProviderTrial | Unanswered, *, with_gpu: bool) -> Finding:
    short = _short(provider)
    name, subject = f"provider_{short.lower()}", f"on {short}"
    if isinstance(trial, Unanswered):
        return problem(name, subject, f"a small graph {trial.why}", _reinstall("onnxruntime"))
    if trial.error:
        return problem(name, subject, f"a small graph failed: {trial.error}", _provider_mend(short))
    if trial.ran_on != provider:
        text = f"listed, but a small graph ran on {_short(trial.ran_on)}"
        text += f": {trial.said}" if trial.said else ""
        if with_gpu and provider == CUDA_PROVIDER:
            return problem(name, subject, text, _provider_mend(short))
        return note(name, subject, text, "" if with_gpu else "nothing, without a GPU")
    return ok(name, subject, "a small graph ran, and computed what it should")


def _provider_mend(short: str) -> str:
    if short == "CPU":
        return _reinstall("onnxruntime")
    return f"its libraries have to fit the driver; {_GPU_BUILD} brings those of CUDA and cuDNN"


def _tensorrt(hardware: NvidiaHardware, engines: Engines) -> Finding:
    found = engines.tensorrt
    finding = _library(
        found, hardware, "tensorrt", "TensorRT", "pip install 'superbrain[tensorrt]'"
    )
    if isinstance(found, Library) and found.version and finding.verdict == "ok":
        major = found.version.partition(".")[0]
        if major not in TENSORRT_MAJORS:
            mend = f"this version knows TensorRT {' and '.join(TENSORRT_MAJORS)}"
            return note("tensorrt", "TensorRT", finding.found, mend)
    return finding


def _tensorrt_rtx(hardware: NvidiaHardware, engines: Engines) -> Finding:
    name, subject = "tensorrt_rtx", "TensorRT for RTX"
    install = "pip install 'superbrain[tensorrt-rtx]'"
    finding = _library(engines.tensorrt_rtx, hardware, name, subject, install)
    devices = engines.cuda.devices if isinstance(engines.cuda, Cuda) else []
    unfit = [d for d in devices if not d.compute_capability.startswith(RTX_CAPABILITIES)]
    installed = isinstance(engines.tensorrt_rtx, Library) and bool(engines.tensorrt_rtx.version)
    if installed and devices and len(unfit) == len(devices):
        text = f"{finding.found}, but it is not made for compute capability "
        return note(name, subject, text + unfit[0].compute_capability, "use TensorRT on it")
    return finding


def _library(
    found: Library | Unanswered, hardware: NvidiaHardware, name: str, subject: str, install: str
) -> Finding:
    if isinstance(found, Unanswered):
        return problem(name, subject, f"its import {found.why}", _reinstall(name))
    if found.missing:
        if hardware.there:
            return note(name, subject, "not installed", install)
        return ok(name, subject, "not installed, and there is no GPU for it")
    if found.error:
        mend = f"its libraries are missing or of another version: {install}"
        return problem(name, subject, f"cannot be imported: {found.error}", mend)
    return ok(name, subject, found.version)


def _reinstall(package: str) -> str:
    return f"pip install --force-reinstall {package}; if it stays so, it is not for this processor"


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")


def _runtime_and_reason(rung: RungFinding) -> tuple[str, str]:
    return rung.rung.partition(":")[0], rung.why_not
