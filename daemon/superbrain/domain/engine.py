"""What an engine is built from, and when a cached one is the very same: the key of the cache.

An engine fits one graph, one version of one runtime and one kind of GPU. `EngineKey` has all that
an engine depends on; two builds with the same key may be taken for one another, though each is
proven all the same before it serves. Driver and CUDA are no part of it: an engine outlives them,
so they are recorded beside it, and every start proves again whatever they are by then.

>>> graph_profiles(graph)
[Profile('image', [1, 3, 32, 32], [1, 3, 640, 640], [1, 3, 960, 960])]
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from superbrain.domain.rungs import graph_file, graph_files
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from superbrain.domain.manifest import Graph, GraphTensor, Manifest, Range

MEMORY_SHARE: Final = 0.5
Priority = Literal["idle", "normal"]


class ProfileError(SuperbrainError):
    """No profile can be made: a dynamic size has no bounds."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The smallest, the typical and the largest shape of one graph input."""

    name: str
    min: list[int]
    opt: list[int]
    max: list[int]


class EngineHost(msgspec.Struct, frozen=True):
    """What builds and runs engines here: the runtime with its full version, GPU, driver and CUDA.

    `driver` is the kernel module's release, `cuda` the newest CUDA that it knows.
    """

    runtime: str
    version: str
    gpu: str = ""
    compute_capability: str = ""
    driver: str = ""
    cuda: str = ""


class BuilderPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator sets for builds: `[builder]` of the configuration.

    `time_limit_s`: of one engine; `memory_mib`: private memory of the builder's process, 0 stands
    for half of the host's; `workspace_mib`: GPU memory that a layer may use while it runs;
    `cache_mib`: what the engine cache may take, and thereby the largest engine; `priority`: idle
    takes the processor only when nobody else wants it, normal shares it like everybody.
    """

    time_limit_s: float = 3600.0
    memory_mib: int = 0
    workspace_mib: int = 1024
    cache_mib: int = 8192
    priority: Priority = "idle"


def with_builder_memory(policy: BuilderPolicy, total_bytes: int) -> BuilderPolicy:
    """Put a number in the place of 0: the share of this host's memory that a builder may use."""
    if policy.memory_mib:
        return policy
    return msgspec.structs.replace(policy, memory_mib=int(total_bytes * MEMORY_SHARE) >> 20)


class EngineKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that makes an engine another one. `flags` are names: numbers change meaning."""

    graph: str
    runtime: str
    version: str
    gpu: str
    compute_capability: str
    precision: str
    profiles: list[Profile]
    flags: list[str]
    workspace_mib: int

    @property
    def rung(self) -> str:
        """The rung that it is an engine of."""
        return f"{self.runtime}:{self.precision}"

    @property
    def digest(self) -> str:
        """A sha256 over all of it."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


class EngineRecord(msgspec.Struct, frozen=True):
    """What lies beside a cached engine: what it is, of which bytes, and where it was built."""

    key: EngineKey
    size_bytes: int
    sha256: str
    host: EngineHost
    seconds: float = 0.0


class EngineFile(msgspec.Struct, frozen=True):
    """An engine that a worker may load: of which graph, where, and its sha256.

    `gpu` and `version` are those of its key: a worker that finds others does not load it.
    """

    graph: str
    path: str
    sha256: str
    gpu: str = ""
    version: str = ""


def engine_key(
    manifest: Manifest, graph: Graph, rung: str, host: EngineHost, flags: list[str], workspace: int
) -> EngineKey:
    """Say which engine `rung` needs for `graph` on `host`.

    Raises:
        ProfileError: a dynamic size of an input has no bounds.
    """
    return EngineKey(
        graph=graph_digest(manifest, graph_file(graph, rung)),
        runtime=host.runtime,
        version=host.version,
        gpu=host.gpu,
        compute_capability=host.compute_capability,
        precision=rung.partition(":")[2],
        profiles=graph_profiles(graph),
        flags=sorted(flags),
        workspace_mib=workspace,
    )


def timing_key(host: EngineHost) -> EngineKey:
    """Name what builds on `host` have measured, which serves every graph and precision."""
    return EngineKey(
        graph="timing cache",
        runtime=host.runtime,
        version=host.version,
        gpu=host.gpu,
        compute_capability=host.compute_capability,
        precision="",
        profiles=[],
        flags=[],
        workspace_mib=0,
    )


def graph_digest(manifest: Manifest, file: str) -> str:
    """Give one sha256 for an ONNX file of a bundle and the files that may hold weights of it.

    These lie below its own folder; only the file itself says which of them it reads, and nobody
    asks it here, so a change of any of them counts.
    """
    beside = PurePosixPath(file).parent
    others = {path for graph in manifest.graphs.values() for path in graph_files(graph)} - {file}
    found = hashlib.sha256()
    for entry in sorted(manifest.files, key=lambda entry: entry.path):
        path = PurePosixPath(entry.path)
        if entry.path in others or not path.is_relative_to(beside):
            continue
        name = "" if entry.path == file else str(path.relative_to(beside))
        found.update(f"{name}\0{entry.sha256}\n".encode())
    return found.hexdigest()


def graph_profiles(graph: Graph) -> list[Profile]:
    """Give the shapes between which each input may lie.

    Those that the manifest fixes too: the file may leave open what it fixes.

    Raises:
        ProfileError: a dynamic size has no bounds.
    """
    return [_profile(one, graph.dynamic) for one in graph.inputs]


def _profile(tensor: GraphTensor, bounds: dict[str, Range]) -> Profile:
    for size in tensor.shape:
        if isinstance(size, str) and size not in bounds:
            raise ProfileError(
                f"input {tensor.name!r}: expected min, opt and max of {size!r}, found none",
                mend=f"Give the bounds of {size} among the graph's dynamic sizes in the manifest",
            )
    least, typical, most = (
        [size if isinstance(size, int) else getattr(bounds[size], end) for size in tensor.shape]
        for end in ("min", "opt", "max")
    )
    return Profile(tensor.name, least, typical, most)
