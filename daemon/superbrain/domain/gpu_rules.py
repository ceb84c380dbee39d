"""What is wrong with a GPU, and which models have to leave it: rules over what NVML tells.

Pure: facts in, trouble out.

    lost             the device is gone, needs a reset, or its driver does not answer
    Xid, the device  the driver reported an error of the device: what it computes is not believed
    Xid, a program   one process did something wrong, or was ended: the device is fine, it is told
    memory, heat     answers are right, but somebody should look

A model leaves a GPU that is lost or has an error of its own, for the next rung of its ladder that
needs none; which means that it is proven there first, like everything that serves.
Sources: https://docs.nvidia.com/deploy/xid-errors/, and which Xids are a program's:
https://github.com/NVIDIA/k8s-device-plugin (its health checks).
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.domain.deployment import Reason
from superbrain.domain.health import Problem, Severity
from superbrain.domain.rungs import uses_gpu

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superbrain.domain.health import GpuFacts, GpuXid

DRIVER_SILENT_S: Final = 60.0
TOLD_FOR: Final = dt.timedelta(hours=1)

#: Steps of a deployment's history: the rung it was on needs a GPU that is lost; it has it again.
RUNG_LOST: Final = "RungLost"
RUNG_REGAINED: Final = "RungRegained"

GPU_LOST: Final = "GPU_LOST"
GPU_FAULT: Final = "GPU_FAULT"
# What a worker fails with where no device is shown.
NO_DEVICE: Final = frozenset({"RungUnavailable", "NoDevice"})

#: A program's doing, which ends that program alone.
_OF_A_PROGRAM: Final = {
    13: "a program computed something that the GPU refuses",
    31: "a program used memory of the GPU that is not its own",
    43: "the GPU stopped a program's work after an error of it",
    45: "a program was ended while the GPU worked for it",
    68: "a program's video could not be processed",
    109: "a program's work could not be put aside in time",
}
#: The device has dealt with it; it counts towards its end.
_CONTAINED: Final = {
    63: "a bad row of its memory was put out of use",
    92: "its memory corrects unusually many errors",
    94: "a memory error was contained: the program that met it was ended",
}
#: The device itself.
_OF_THE_DEVICE: Final = {
    48: "its memory has an error that it cannot correct",
    61: "its own controller has stopped",
    62: "its own controller has halted",
    64: "a bad row of its memory could not be put out of use",
    74: "its link to another GPU has failed",
    79: "it has fallen off the bus",
    95: "a memory error was not contained",
    119: "its own processor does not answer the driver",
    120: "its own processor has failed",
    140: "its memory has an error that it has not recovered from",
}
_RESET: Final = (
    "stop superbraind, reset it with nvidia-smi --gpu-reset, or switch the machine off and on; if "
    "it comes again, look at its seat, power and temperature, or have it replaced"
)
_RETURN: Final = "models return to it by themselves when it has been well for a minute"


class GpuTrouble(msgspec.Struct, frozen=True):
    """Something wrong with one GPU, None for all of them; `leave`: whether models must leave it."""

    gpu: int | None
    code: str
    message: str
    mend: str
    leave: bool
    severity: Severity = "warning"

    @property
    def reason(self) -> Reason:
        """As the reason of a step in a deployment's life."""
        return Reason(self.code, self.message, self.mend)


def troubles(
    gpus: Sequence[GpuFacts], now: dt.datetime, *, silent_s: float = 0.0
) -> list[GpuTrouble]:
    """Say what is wrong with the GPUs of this host.

    Args:
        gpus: what was last known of them.
        now: the present.
        silent_s: for how long the driver has not answered.
    """
    found = [trouble for gpu in gpus for trouble in _of_one(gpu, now)]
    if silent_s >= DRIVER_SILENT_S:
        message = f"the driver of the GPUs has not answered for {silent_s:.0f} s"
        mend = f"look for Xid in the kernel's log (dmesg); {_RESET}"
        found.append(GpuTrouble(None, GPU_LOST, message, mend, leave=True))
    return found


def problems(found: Sequence[GpuTrouble]) -> list[Problem]:
    """Say it as the health report does."""
    return [
        Problem(
            one.severity, "GPUs" if one.gpu is None else f"GPU {one.gpu}", one.message, one.mend
        )
        for one in found
    ]


def must_leave(
    rung: str, pids: Sequence[int], gpus: Sequence[GpuFacts], found: Sequence[GpuTrouble]
) -> GpuTrouble | None:
    """Say why a model must leave the GPU that it runs on; None when it may stay.

    Which GPU that is, the driver's lists of processes tell. Where they do not know its processes
    (in a container they often do not), every GPU may be it: a slower rung that is proven is better
    than a faster one that may be wrong.

    Args:
        rung: that serves.
        pids: of its workers.
        gpus: all there are.
        found: what is wrong with them.
    """
    if not uses_gpu(rung):
        return None
    mine = {gpu.index for gpu in gpus if _holds(gpu, pids)}
    for trouble in found:
        if trouble.leave and (trouble.gpu is None or not mine or trouble.gpu in mine):
            return trouble
    return None


def unusable(rung: str, gpus: Sequence[GpuFacts], found: Sequence[GpuTrouble]) -> GpuTrouble | None:
    """Say why nothing new may begin on this rung: no GPU is left that can be believed."""
    if not uses_gpu(rung):
        return None
    bad = {trouble.gpu: trouble for trouble in found if trouble.leave}
    left = [gpu for gpu in gpus if gpu.index not in bad]
    return None if not bad or (left and None not in bad) else next(iter(bad.values()))


def rungs_without_gpu(ladder: Sequence[str], index: int) -> list[int]:
    """Give the places of the later rungs of a ladder that need no GPU, in its order."""
    return [at for at in range(index + 1, len(ladder)) if not uses_gpu(ladder[at])]


def lost_gpu(rung: str, code: str) -> bool:
    """Tell whether a rung did not come back for want of a GPU, by the code that it failed with."""
    return uses_gpu(rung) and code in {GPU_LOST, GPU_FAULT, *NO_DEVICE}


def home(ladder: Sequence[str], steps: Sequence[tuple[str, str]]) -> int | None:
    """Give the place of the rung that a deployment left because of a GPU; None for no such.

    Args:
        ladder: its rungs.
        steps: its history, newest first: the name of each step, and the rung that it was on then.
    """
    for step, rung in steps:
        if step == RUNG_REGAINED:
            return None
        if step == RUNG_LOST:
            return ladder.index(rung) if rung in ladder else None
    return None


def _of_one(gpu: GpuFacts, now: dt.datetime) -> Iterator[GpuTrouble]:
    if gpu.lost:
        message = f"{gpu.name}: {gpu.lost}"
        yield GpuTrouble(gpu.index, GPU_LOST, message, f"{_RESET}; {_RETURN}", leave=True)
    newest = {xid.code: xid for xid in gpu.xids}
    for xid in newest.values():
        yield from _of_xid(gpu, xid, now)
    if gpu.ecc_uncorrected:
        message = f"{gpu.name}: {gpu.ecc_uncorrected} memory errors could not be corrected"
        mend = "plan its replacement; nvidia-smi -q -d ECC,ROW_REMAPPER says how far it is"
        yield GpuTrouble(gpu.index, GPU_FAULT, message, mend, leave=False)
    hot = [why for why in gpu.throttled_by or () if why.startswith("temperature")]
    if hot:
        at = f" at {gpu.temperature_celsius:.0f} °C" if gpu.temperature_celsius is not None else ""
        message = f"{gpu.name} is slowed down by its {hot[-1]}{at}"
        mend = "look at fans, dust and the air around it"
        yield GpuTrouble(gpu.index, GPU_FAULT, message, mend, leave=False)


def _of_xid(gpu: GpuFacts, xid: GpuXid, now: dt.datetime) -> Iterator[GpuTrouble]:
    told = f"{gpu.name}: Xid {xid.code}"
    harmless = _OF_A_PROGRAM.get(xid.code) or _CONTAINED.get(xid.code)
    if harmless is None:
        what = _OF_THE_DEVICE.get(xid.code, "the driver reported an error of the device")
        mend = f"{_RESET}; {_RETURN}"
        yield GpuTrouble(gpu.index, GPU_FAULT, f"{told}: {what}", mend, leave=True)
    elif now - xid.at < TOLD_FOR:
        mend = "nothing, if it stays alone: dmesg has it whole, and this is told for an hour"
        yield GpuTrouble(gpu.index, GPU_FAULT, f"{told}: {harmless}", mend, leave=False)


def _holds(gpu: GpuFacts, pids: Sequence[int]) -> bool:
    return any(process.pid in pids for process in gpu.processes or ())
