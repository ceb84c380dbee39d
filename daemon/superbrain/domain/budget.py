"""The memory budget: what a candidate will need, against what is free while the old one serves.

Pure: sizes in, a refusal with figures out. A prediction is a lower bound: what is not known counts
nothing, so only what cannot fit is refused, before it takes memory away from what serves.

    engine      the weights, at the precision of the rung; or the size of the engine file
    context     what one instance works in, where a builder has measured it
    workspace   what its kernels may use beside that, likewise
    runtime     what a process pays before it has loaded anything: a CUDA context, a Python

On a GPU, where what does not fit fails, all that a worker of the serving version is seen to hold
beyond its weights counts as the runtime's: the next version is usually like the one before it. In
the host's memory, which can be taken back and swapped, only the weights count, and what the author
of the bundle has declared (`targets.memory_mb`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.domain.deployment import Reason
from superbrain.domain.quantities import bytes_text

if TYPE_CHECKING:
    from superbrain.domain.manifest import Manifest

NOT_ENOUGH_MEMORY: Final = "NOT_ENOUGH_MEMORY"
#: A CUDA context takes some hundred MiB; this little counts where none has been measured.
CUDA_CONTEXT_BYTES: Final = 150 << 20
#: Size of an engine's weights, of those in a graph file of float32.
_SHARES: Final = {"fp16": 0.5, "bf16": 0.5, "int8": 0.25, "fp8": 0.25}
_GRAPHS: Final = "graphs/"


class Need(msgspec.Struct, frozen=True):
    """What one instance needs at least, in bytes, and how many there are."""

    engine_bytes: int
    context_bytes: int = 0
    workspace_bytes: int = 0
    runtime_bytes: int = 0
    instances: int = 1

    @property
    def total_bytes(self) -> int:
        """Of all instances."""
        parts = (self.engine_bytes, self.context_bytes, self.workspace_bytes, self.runtime_bytes)
        return self.instances * sum(parts)

    @property
    def text(self) -> str:
        """Say what it is made of."""
        parts = {
            "engine": self.engine_bytes,
            "context": self.context_bytes,
            "workspace": self.workspace_bytes,
            "runtime": self.runtime_bytes,
        }
        made_of = ", ".join(f"{name} {bytes_text(size)}" for name, size in parts.items() if size)
        times = f"{self.instances} times " if self.instances > 1 else ""
        return f"{bytes_text(self.total_bytes)} ({times}{made_of})"


class Room(msgspec.Struct, frozen=True):
    """Memory of one kind: `where`, such as `GPU 0`, and what of it the serving version holds."""

    where: str
    total_bytes: int
    free_bytes: int
    held_bytes: int = 0
    held_by: str = ""


class Measured(msgspec.Struct, frozen=True):
    """What one worker of the version that serves was seen to hold, and how large its graphs are."""

    memory_bytes: int
    weights_bytes: int


def weights_bytes(manifest: Manifest) -> int:
    """Give the size of all graph files of a bundle, external data included."""
    return sum(file.size_bytes for file in manifest.files if file.path.startswith(_GRAPHS))


def predict(
    manifest: Manifest, rung: str, *, measured: Measured | None = None, on_gpu: bool
) -> Need:
    """Predict what a candidate needs at least.

    Args:
        manifest: of the candidate.
        rung: it is to run on.
        measured: what a worker of the serving version holds on a rung of the same kind.
        on_gpu: whether it is about the memory of a GPU, or of the host.
    """
    weights = weights_bytes(manifest)
    share = _SHARES.get(rung.partition(":")[2], 1.0) if on_gpu else 1.0
    instances = manifest.serving.instances
    if measured is not None:
        runtime = measured.memory_bytes - int(share * measured.weights_bytes)
    elif on_gpu:
        runtime = CUDA_CONTEXT_BYTES
    else:
        runtime = manifest.targets.memory_mb * 1_000_000 // instances - weights
    return Need(int(share * weights), runtime_bytes=max(0, runtime), instances=instances)


def refusal(need: Need, room: Room, candidate: str) -> Reason | None:
    """Say why a candidate, such as `ocr 3.1.0 on tensorrt:fp16`, may not load; None when it may."""
    if need.total_bytes <= room.free_bytes:
        return None
    free, total = bytes_text(room.free_bytes), bytes_text(room.total_bytes)
    message = f"{candidate} needs at least {need.text} of {room.where}, {free} of {total} are free"
    if room.held_bytes:
        message += f" while {room.held_by} serves and holds {bytes_text(room.held_bytes)}"
    return Reason(NOT_ENOUGH_MEMORY, message, _mend(need, room))


def fits_in_place(need: Need, room: Room) -> bool:
    """Whether it would fit if what serves were gone."""
    return need.total_bytes <= room.free_bytes + room.held_bytes


def _mend(need: Need, room: Room) -> str:
    """Say what would help, the gentlest first."""
    one = need.total_bytes // need.instances
    ways = []
    if need.instances > 1 and one <= room.free_bytes:
        fitting = room.free_bytes // max(1, one)
        ways.append(f"lower serving.instances to {fitting}")
    if room.held_bytes and fits_in_place(need, room):
        ways.append(
            f"retire {room.held_by} first, then `superbrain retry`: it fits in its place, and "
            "nobody is answered meanwhile"
        )
    missing = bytes_text(need.total_bytes - room.free_bytes)
    ways.append(f"free {missing}: retire another model, or give the host more memory")
    return "; or ".join(ways)
