"""Graphs of an author's folder in another precision, made and measured in a process of its own.

The child runs the golden cases on the reference engine to see what goes into each graph, converts
copies, and compares what the original and the new file give for the same inputs. Converters and
bundle code crash, hang and overwrite there. The parent works on a staged copy of the folder's
graphs; what a converter has done to its input shows by its sha256.

The child is `python -I -m superbrain.serve.converting RESULT`: it reads one `Order` from standard
input and writes one `Converted` to the file RESULT.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from superbrain.bundle.tensors import Array
from superbrain.domain.figures import Figures, measure
from superbrain.domain.manifest import Graph, Manifest
from superbrain.domain.manifest_rules import FOLDERS
from superbrain.engines.conversion import convert, mend_of
from superbrain.engines.onnx_files import external_files
from superbrain.engines.port import Engine, EngineError
from superbrain.engines.registry import runtime_for
from superbrain.serve.bundle_files import BundleFiles
from superbrain.serve.model import Model
from superbrain.serve.proving import read_tensors
from superbrain.serve.wrapped_engine import WrappedEngine
from superbrain.wire.errors import SuperbrainError

MOST_SAMPLES: Final = 64
REFERENCE: Final = "onnxruntime:cpu"
_LIMIT_S: Final = 3600
_STANDARD_ERROR = 2


class Order(msgspec.Struct, frozen=True):
    """What to convert: these graphs of the staged folder, whose manifest this is.

    `light`: fp16 by ONNX Runtime's own converter, though AutoCast may be installed.
    """

    folder: str
    manifest: Manifest
    graphs: list[str]
    precision: str
    light: bool = False


class OutputError(msgspec.Struct, frozen=True):
    """How far one output of the new file is from the original's, at worst over all inputs."""

    output: str
    max_abs_error: float | None
    max_rel_error: float | None
    cosine: float | None


class ConvertedGraph(msgspec.Struct, frozen=True):
    """One graph in its new precision, or why there is none; `samples`: inputs it was run with.

    `converter`: what made the file, with its version; `note`: why it was not AutoCast, though that
    is installed.
    """

    graph: str
    precision: str
    path: str
    size_bytes: int = 0
    original_bytes: int = 0
    samples: int = 0
    outputs: list[OutputError] = []
    error: str = ""
    mend: str = ""
    converter: str = ""
    note: str = ""


class Converted(msgspec.Struct, frozen=True):
    """What the child gives back; `error` when it could not even run the bundle."""

    graphs: list[ConvertedGraph] = []
    error: str = ""
    mend: str = ""


# --- the parent -----------------------------------------------------------------------------------


def precision_path(graph: Graph, precision: str) -> str:
    """Give the path of a graph's file in another precision: `graphs/det.fp16.onnx`."""
    path = PurePosixPath(graph.path)
    return str(path.with_name(f"{path.stem}.{precision}{path.suffix}"))


def stage(folder: Path, target: Path) -> None:
    """Lay out a bundle's folder in `target`: graphs as copies, all else as links to what is there.

    Raises:
        EngineError: it cannot be copied.
    """
    try:
        for name in FOLDERS:
            if name == "graphs":
                shutil.copytree(folder / name, target / name)
            elif (folder / name).exists():
                (target / name).symlink_to((folder / name).resolve())
    except OSError as error:
        raise EngineError(
            f"{folder}: expected to copy its graphs, found: {error}",
            mend="Make room for a copy of them in the folder for temporary files ($TMPDIR)",
        ) from error


def convert_staged(
    staged: Path, manifest: Manifest, graphs: list[str], precision: str, *, light: bool = False
) -> Converted:
    """Convert graphs of a staged folder in a child process; what it did is never believed unseen.

    Raises:
        EngineError: a converter changed its input, or the child ended without a result.
    """
    before = {name: _digests(staged, manifest.graphs[name]) for name in graphs}
    order = msgspec.msgpack.encode(Order(str(staged), manifest, graphs, precision, light))
    result = staged / "converted"
    command = [sys.executable, "-I", "-m", "superbrain.serve.converting", str(result)]
    try:
        child = subprocess.run(
            command, input=order, stdout=_STANDARD_ERROR, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"expected {precision} within {_LIMIT_S} s, found it running",
            mend=mend_of(precision, light=light),
        ) from error
    if not result.exists():
        found = f"found that the process ended with status {child.returncode}"
        raise EngineError(
            f"expected the graphs in {precision}, {found}", mend=mend_of(precision, light=light)
        )
    converted = msgspec.msgpack.decode(result.read_bytes(), type=Converted)
    result.unlink()
    for name, digests in before.items():
        if _digests(staged, manifest.graphs[name]) != digests:
            raise EngineError(
                f"graph {name!r}: expected the converter to {precision} to leave its input as it "
                "was, found it changed: its figures mean nothing",
                mend=mend_of(precision, light=light),
            )
    return converted


def _digests(folder: Path, graph: Graph) -> list[str]:
    path = folder / graph.path
    parts = [path, *(path.parent / location for location in external_files(path))]
    return [_digest(part) for part in parts]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the child ------------------------------------------------------------------------------------


class Listener(WrappedEngine):
    """Stands before an engine and keeps what goes into it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.heard: list[dict[str, Array]] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine; copies, because a pipeline may change arrays in place."""
        if len(self.heard) < MOST_SAMPLES:
            self.heard.append({name: array.copy() for name, array in inputs.items()})
        return self._run(inputs)

    def bound(self) -> None:
        """Give none: nothing must go past `run`."""


def carry_out(order: Order) -> Converted:
    """Convert and measure in this very process."""
    folder = Path(order.folder)
    try:
        samples = _listen(folder, order.manifest)
    except SuperbrainError as error:
        return Converted(error=error.message, mend=error.mend)
    return Converted(
        [_convert(folder, order, name, samples.get(name, [])) for name in order.graphs]
    )


def _listen(folder: Path, manifest: Manifest) -> dict[str, list[dict[str, Array]]]:
    """Run every golden request on the reference engine; what went into each graph."""
    listeners: dict[str, Listener] = {}

    def wrap(name: str, engine: Engine) -> Engine:
        listeners[name] = Listener(engine)
        return listeners[name]

    files = BundleFiles(folder, manifest)
    with Model.open(folder, manifest, REFERENCE, wrap) as model:
        for case in manifest.golden.cases:
            model.infer(read_tensors(files, case.request, manifest.interface.inputs))
    return {name: listener.heard for name, listener in listeners.items()}


def _convert(
    folder: Path, order: Order, name: str, samples: list[dict[str, Array]]
) -> ConvertedGraph:
    graph = order.manifest.graphs[name]
    path = precision_path(graph, order.precision)
    source, target = folder / graph.path, folder / path
    made = ConvertedGraph(name, order.precision, path, original_bytes=source.stat().st_size)
    try:
        by = convert(order.precision, source, target, samples, light=order.light)
        made = msgspec.structs.replace(made, converter=by.converter, note=by.note)
        outputs = _compare(graph, source, target, samples)
    except SuperbrainError as error:
        target.unlink(missing_ok=True)
        return msgspec.structs.replace(made, error=error.message, mend=error.mend)
    return msgspec.structs.replace(
        made, size_bytes=target.stat().st_size, samples=len(samples), outputs=outputs
    )


def _compare(
    graph: Graph, source: Path, target: Path, samples: list[dict[str, Array]]
) -> list[OutputError]:
    """Run both files with the same inputs; the worst figures of each output."""
    runtime = runtime_for(REFERENCE)
    original, converted = (
        runtime.load(REFERENCE, source, graph),
        runtime.load(REFERENCE, target, graph),
    )
    figures: dict[str, list[Figures]] = {tensor.name: [] for tensor in graph.outputs}
    for sample in samples:
        expected, actual = original.run(sample), converted.run(sample)
        for output, wanted in expected.items():
            figures[output].append(measure(wanted, actual[output]))
    return [_worst(output, found) for output, found in figures.items()]


def _worst(output: str, found: list[Figures]) -> OutputError:
    absolute = [one.max_abs_error for one in found if one.max_abs_error is not None]
    relative = [one.max_rel_error for one in found if one.max_rel_error is not None]
    cosines = [one.cosine for one in found if one.cosine is not None]
    return OutputError(
        output,
        max(absolute, default=None),
        max(relative, default=None),
        min(cosines, default=None),
    )


def main(result: Path) -> None:
    """Be the child."""
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Order)
    converted = carry_out(order)
    unfinished = result.with_suffix(".part")
    unfinished.write_bytes(msgspec.msgpack.encode(converted))
    unfinished.rename(result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
