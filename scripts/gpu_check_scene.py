"""What the steps of `scripts/gpu-check` have in common: plan, machine, an appliance, figures.

A rehearsal takes the rung `onnxruntime:cpu` where a GPU's would be, and a driver that pretends, so
that builders build real engines with TensorRT for RTX, which then nothing can run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

import superbrain
from scripts.gpu_check_report import Found
from superbrain.cli.doctor import RUNGS_CHILD
from superbrain.domain.health import GpuFacts
from superbrain.domain.probe import GpuFigures
from superbrain.domain.quantities import bytes_text
from superbrain.domain.rungs import FILE_PRECISIONS, precision_of, uses_gpu
from superbrain.engines.cuda_driver import first_gpu
from superbrain.engines.port import RungUnavailable
from superbrain.engines.probe import ask_child, probe_engines
from superbrain.engines.registry import runtime_for
from superbrain.host.facts import held_by
from tests.support.appliance import Appliance
from tests.support.engines import RTX_INSTALLED
from tests.support.pretended_gpu import HAS_COMPILER, pretended_driver

CPU_RUNG: Final = "onnxruntime:cpu"
# The rung that takes the file in fp16, beside the one that takes the graph as it is.
FP16: Final = {"onnxruntime:cuda": "onnxruntime:cuda-fp16", CPU_RUNG: "onnxruntime:cpu-fp16"}
# What the rungs have in their names on which ONNX Runtime captures CUDA graphs.
GRAPHS: Final = "-graphs"
NATIVE: Final = "torchscript"
PROBE_S: Final = 120.0
PACKAGES: Final = (
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx-cu13-libs",
    "cuda-bindings",
    "pycuda",
    "torch",
    "numpy",
)


class Plan(msgspec.Struct, frozen=True):
    """What is to be checked: on which rungs, and how long the soak is."""

    rehearsal: bool
    rungs: list[str]
    minutes: float

    @property
    def plain(self) -> list[str]:
        """The rungs that run a graph as it is, and so must prove it."""
        return [rung for rung in self.rungs if precision_of(rung) not in FILE_PRECISIONS]

    @property
    def onnx(self) -> list[str]:
        """The rungs that run an ONNX file."""
        return [rung for rung in self.rungs if not is_native(rung)]


class Told(msgspec.Struct, frozen=True):
    """What a step tells whoever started it."""

    found: Found = Found()
    skipped: str = ""


class Skipped(Exception):
    """The step cannot run here, and why."""


def is_native(rung: str) -> bool:
    """Whether a rung runs TorchScript, and nothing else."""
    return rung.partition(":")[0] == NATIVE


def rungs_to_check(*, rehearsal: bool) -> list[str]:
    """Give every rung on a GPU that this host makes of a graph as it is; rehearsed: the CPU's."""
    if rehearsal:
        return [CPU_RUNG, *([f"{NATIVE}:cpu"] if importlib.util.find_spec("torch") else [])]
    why_not = probe_engines(PROBE_S, rungs_child=RUNGS_CHILD).rungs
    return [
        rung
        for rung, reason in why_not.items()
        if not reason and uses_gpu(rung) and not runtime_for(rung).needs_file(rung)
    ]


def machine_facts(note: str) -> dict[str, str]:
    """Say on what this was checked."""
    facts = {"superbrain": superbrain.__version__, "note": note, "GPU": _gpu()}
    facts |= {
        f"GPU {one.index}": f"{one.name}, {bytes_text(one.memory_total_bytes or 0)}"
        for one in gpus()
    }
    facts |= {
        "system": f"{_system()}, Linux {os.uname().release}, {platform.machine()}",
        "processor": f"{os.cpu_count()} cores",
        "Python": platform.python_version(),
    }
    return {name: said for name, said in (facts | _versions()).items() if said}


def _gpu() -> str:
    try:
        gpu = first_gpu()
    except RungUnavailable as error:
        return f"none: {error.message}"
    major, minor = gpu.capability
    return f"{gpu.name}, compute capability {major}.{minor}, driver {gpu.driver}, CUDA {gpu.cuda}"


def _system() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return platform.system()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


# --- an appliance -------------------------------------------------------------------------------


@contextmanager
def appliance(plan: Plan, folder: Path, *, pretend: bool = False) -> Iterator[Appliance]:
    """A daemon as tests have it; `pretend`: in a rehearsal its builders find a GPU that is none."""
    settings = '[builder]\npriority = "normal"\n'  # nothing else is to be done on this machine
    made = Appliance(folder, start=False, settings=settings)
    with made:
        if pretend and builds_without_gpu(plan):
            os.environ["LD_PRELOAD"] = str(pretended_driver(folder / "driver"))
        try:
            made.start()
        finally:
            os.environ.pop("LD_PRELOAD", None)
        yield made


def builds_without_gpu(plan: Plan) -> bool:
    """Whether a rehearsal can have real engines built."""
    return plan.rehearsal and RTX_INSTALLED and HAS_COMPILER


# --- figures ------------------------------------------------------------------------------------


def gpus() -> list[GpuFacts]:
    """What NVML says now; nothing where it says nothing."""
    found = ask_child("", GpuFigures, module="superbrain.host.gpu_child", timeout_s=30)
    return found.gpus if isinstance(found, GpuFigures) else []


def gpu_used_bytes() -> int:
    """Memory of all GPUs that is used."""
    return sum(one.memory_used_bytes or 0 for one in gpus())


def worker_bytes(running: Appliance, model: str = "adder") -> int:
    """Private memory of a model's workers on the host."""
    facts = running.model(model)
    held = [held_by(one.pid) for one in facts.workers] if facts else []
    return sum(one.memory_bytes for one in held if one is not None)


def meter(plan: Plan, running: Appliance) -> Callable[[], int]:
    """Give what measures the memory that counts: the GPU's, or in a rehearsal the workers'."""
    return (lambda: worker_bytes(running)) if plan.rehearsal else gpu_used_bytes
