"""What a probe found of the libraries that run engines: structures that cross a process boundary.

Every one is an answer of a short child process (engines/probe_child.py). One that crashed, hung or
said nothing that can be read leaves an `Unanswered` in its place: that is a finding too.
"""

from __future__ import annotations

import msgspec

from superbrain.domain.health import GpuFacts


class Unanswered(msgspec.Struct, frozen=True, tag=True):
    """A question that ended its process, or took too long; `why` in a sentence."""

    why: str


class CudaDevice(msgspec.Struct, frozen=True):
    """One device as the CUDA driver shows it."""

    name: str
    compute_capability: str
    memory_bytes: int


class Cuda(msgspec.Struct, frozen=True, tag=True):
    """The CUDA driver library.

    `found` is false where there is none; `error`: what it answers instead of devices.
    """

    found: bool
    version: str = ""
    error: str = ""
    devices: list[CudaDevice] = []


class Library(msgspec.Struct, frozen=True, tag=True):
    """A Python library: its version, or what its import failed with."""

    version: str = ""
    error: str = ""
    missing: bool = False


class OnnxRuntimeBuild(msgspec.Struct, frozen=True, tag=True):
    """ONNX Runtime: its version, and the providers it says it has, which proves nothing."""

    version: str = ""
    error: str = ""
    missing: bool = False
    listed: list[str] = []


class ProviderTrial(msgspec.Struct, frozen=True, tag=True):
    """What came of running a small graph on one provider.

    `ran_on`: what the session really took, first; `error`: what it failed with, empty for nothing;
    `said`: what the library printed, where it took another one.
    """

    asked: str
    ran_on: str = ""
    error: str = ""
    said: str = ""


class RungAnswers(msgspec.Struct, frozen=True, tag=True):
    """What the runtimes say of rungs: why this host cannot make them; empty sentences: it can."""

    why_not: dict[str, str]


class GpuFigures(msgspec.Struct, frozen=True, tag=True):
    """What the management library says of the GPUs."""

    gpus: list[GpuFacts]


class NvidiaHardware(msgspec.Struct, frozen=True):
    """What of NVIDIA is built into the machine, and the driver for it.

    `devices`: on the PCI bus; `board`: whether the machine is one of NVIDIA's boards (Jetson);
    `driver`: version of the kernel module, empty while none is loaded; `closed`: device files that
    this user may not open.
    """

    devices: int = 0
    board: bool = False
    driver: str = ""
    closed: list[str] = []

    @property
    def there(self) -> bool:
        """Whether there is a GPU at all."""
        return self.devices > 0 or self.board


Answer = Unanswered | Cuda | Library | OnnxRuntimeBuild | ProviderTrial | RungAnswers | GpuFigures


class Engines(msgspec.Struct, frozen=True):
    """All that was found. `packages`: installed distributions that matter, with their versions."""

    packages: dict[str, str]
    cuda: Cuda | Unanswered
    tensorrt: Library | Unanswered
    tensorrt_rtx: Library | Unanswered
    onnxruntime: OnnxRuntimeBuild | Unanswered
    providers: dict[str, ProviderTrial | Unanswered]
    rungs: dict[str, str]
