"""The engine port: what every runtime must offer, and the errors it may raise.

An engine is one graph made runnable on this host by one rung. A runtime turns a graph into an
engine or raises `EngineError`; whatever its library throws is translated there and nowhere else.

    EngineError               the graph does not load or build on this rung
    ├── RungUnavailable       this host cannot run this rung
    │   ├── NotInstalled      a library is missing, or is a build without it
    │   ├── NoDevice          no device that works
    │   ├── DeviceUnfit       a device of the wrong kind, such as its compute capability
    │   └── PrecisionMissing  the bundle has no file of the rung's precision
    ├── GraphMismatch         the graph is not what the manifest says: the bundle's fault
    ├── BuildFailed           the runtime cannot make an engine of this graph
    │   └── BuildTimedOut     not within the time that it was given
    ├── EngineRefused         a built engine is not what was built, or the runtime does not take it
    └── ExecutionFailed       the engine refused or broke on one input
        └── GpuBroken         and no other run can succeed in this process

The names are what a deployment records as the reason against a rung, so they stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from superbrain.domain.engine import EngineFile
    from superbrain.domain.manifest import Graph, GraphTensor

Array = np.ndarray[Any, np.dtype[Any]]


class EngineError(SuperbrainError):
    """A graph could not be loaded or run.

    `bundle_at_fault`: no other rung and no other host would do better.
    """

    bundle_at_fault: ClassVar[bool] = False


class RungUnavailable(EngineError):
    """This host cannot run this rung."""


class NotInstalled(RungUnavailable):
    """A library that the rung needs is missing, does not work, or was built without it."""


class NoDevice(RungUnavailable):
    """There is no device for the rung, or its driver does not work."""


class DeviceUnfit(RungUnavailable):
    """The device is there, but it cannot run the rung."""


class PrecisionMissing(RungUnavailable):
    """The bundle has no file of the rung's precision."""


class GraphMismatch(EngineError):
    """The graph's inputs or outputs are not what the manifest declares."""

    bundle_at_fault = True


class BuildFailed(EngineError):
    """The runtime cannot make an engine of this graph."""


class BuildTimedOut(BuildFailed):
    """The build took longer than it may."""


class EngineRefused(EngineError):
    """A built engine is damaged, or the runtime does not take it."""


class ExecutionFailed(EngineError):
    """One run failed; the engine itself is still usable."""


class GpuBroken(ExecutionFailed):
    """A run failed in a way after which this process cannot use its GPU; another one may."""


class Bound(NamedTuple):
    """Memory that is bound to a graph, for runs that make no arrays.

    Whoever holds `turn` fills every input, calls `run`, and is done with the outputs before letting
    go. A run that raises says nothing of the inputs: `Engine.run` does.
    """

    turn: threading.Lock
    run: Callable[[], object]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


class Engine(Protocol):
    """One runnable graph. Not thread-safe: one caller at a time."""

    @property
    def rung(self) -> str:
        """The rung it was made by, such as `onnxruntime:cpu`."""

    @property
    def runtime(self) -> str:
        """Library and version that run it, such as `onnxruntime 1.31.1`."""

    @property
    def inputs(self) -> tuple[GraphTensor, ...]:
        """Inputs as the manifest declares them, checked against the graph."""

    @property
    def outputs(self) -> tuple[GraphTensor, ...]:
        """Outputs as the manifest declares them, checked against the graph."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The graph file's own metadata (ONNX `metadata_props`)."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once.

        Args:
            inputs: one array per input, of its datatype, sizes within the declared bounds;
                strings as object arrays.

        Returns:
            One array per output, by name.

        Raises:
            ExecutionFailed: an input is missing, extra or does not fit, or the run failed.
            GpuBroken: the run failed, and so will all others in this process.
        """

    def bound(self) -> Bound | None:
        """Give the memory that is bound to the graph now; None where it runs on arrays alone.

        It may be used until the engine is closed.
        """

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards."""


class Runtime(Protocol):
    """One way to run graphs on this host."""

    @property
    def rungs(self) -> tuple[str, ...]:
        """The rungs it can make, such as `("onnxruntime:cpu",)`."""

    def needs_file(self, rung: str) -> bool:
        """Tell whether the rung's precision must come from a file of the bundle.

        False where the runtime makes it from the graph as it is, or there is nothing to make.
        """

    def unavailable(self, rung: str) -> str:
        """Say in one sentence why this host cannot make `rung`; empty when it can."""

    def load(self, rung: str, path: Path, graph: Graph) -> Engine:
        """Make the ONNX file at `path` runnable.

        Raises:
            RungUnavailable, GraphMismatch, EngineError: see the module's tree.
        """


class BuiltRuntime(Runtime, Protocol):
    """A runtime whose engines a builder process makes beforehand, for this very host."""

    def outlook(self) -> str:
        """Give a word that changes with whatever a builder's look at this host may depend on.

        It is found without importing anything, so the daemon may ask.
        """

    def load_built(self, rung: str, engine: EngineFile, path: Path, graph: Graph) -> Engine:
        """Make a built engine runnable; the ONNX file at `path` still tells its metadata.

        Raises:
            RungUnavailable, EngineRefused, EngineError: see the module's tree.
        """
