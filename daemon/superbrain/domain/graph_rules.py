"""The rules about graphs and the interface: tensors, dynamic sizes, and that both agree.

With code/pipeline.py the bundle's own code translates between what a caller sends and what the
graphs take. Without it the single graph is the interface, so the two must say the same.
"""

from __future__ import annotations

import re

from superbrain.domain.errors import shown
from superbrain.domain.manifest import (
    Graph,
    GraphTensor,
    Interface,
    InterfaceTensor,
    Manifest,
    Range,
    refuse,
)
from superbrain.domain.rungs import FILE_PRECISIONS, graph_files
from superbrain.wire.datatypes import DATATYPES

PIPELINE_PATH = "code/pipeline.py"
MAX_RANK = 8
MAX_DIMENSION = (1 << 31) - 1
MAX_THREADS = 256
MAX_MEMORY_MB = 1 << 24
MAX_TEXT_LENGTH = 2000

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TENSOR_NAME = re.compile(r"[!-~]{1,200}")
SIZE_NAME = re.compile(r"[!-~]([ -~]{0,198}[!-~])?")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def check_graphs(manifest: Manifest, paths: frozenset[str]) -> None:
    """Check graphs and interface against each other and against the listed `paths`.

    Raises:
        ManifestError: the first rule that is broken.
    """
    if not manifest.graphs:
        refuse("MANIFEST_GRAPH", "graphs: expected at least one graph, found none")
    for name, graph in manifest.graphs.items():
        _check_graph(name, graph, paths)
    _check_interface(manifest.interface)
    _check_pipeline(manifest, paths)


def check_text(where: str, text: str) -> None:
    """Check text that will be shown to people: short, and nothing a terminal would obey.

    Raises:
        ManifestError: it is not.
    """
    if len(text) > MAX_TEXT_LENGTH or CONTROL.search(text):
        refuse(
            "MANIFEST_TEXT",
            f"{where}: expected at most {MAX_TEXT_LENGTH} characters without control characters, "
            f"found {shown(text)}",
        )


def _check_graph(name: str, graph: Graph, paths: frozenset[str]) -> None:
    where = f"graphs.{name}"
    if not NAME.fullmatch(name):
        refuse(
            "MANIFEST_GRAPH",
            f"graphs: expected a name of 1-64 of a-z 0-9 . _ - that starts with a letter or "
            f"digit, found {shown(name)}",
        )
    if graph.path not in paths or not graph.path.startswith("graphs/"):
        refuse(
            "MANIFEST_FILE_MISSING",
            f"{where}: expected path to name a listed file under graphs/, "
            f"found {shown(graph.path)}",
        )
    if not 1 <= graph.threads <= MAX_THREADS:
        refuse(
            "MANIFEST_GRAPH",
            f"{where}: expected threads of 1 to {MAX_THREADS}, found {shown(graph.threads)}",
        )
    if not 0 <= graph.gpu_memory_mb <= MAX_MEMORY_MB:
        refuse(
            "MANIFEST_GRAPH",
            f"{where}: expected gpu_memory_mb of 0 to {MAX_MEMORY_MB}, "
            f"found {shown(graph.gpu_memory_mb)}",
        )
    _check_precisions(where, graph, paths)
    for kind, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        _check_tensors(f"{where}.{kind}", tensors)
    _check_dynamic(where, graph)


def _check_precisions(where: str, graph: Graph, paths: frozenset[str]) -> None:
    for name, path in graph.precisions.items():
        if name not in FILE_PRECISIONS:
            refuse(
                "MANIFEST_PRECISION",
                f"{where}.precisions: expected names of {', '.join(FILE_PRECISIONS)}, "
                f"found {shown(name)}",
                "The graph as it is stands in `path`",
            )
        if path not in paths or not path.startswith("graphs/"):
            refuse(
                "MANIFEST_FILE_MISSING",
                f"{where}.precisions.{name}: expected a listed file under graphs/, "
                f"found {shown(path)}",
            )
    files = graph_files(graph)
    if len(set(files)) != len(files):
        refuse(
            "MANIFEST_PRECISION",
            f"{where}.precisions: expected another file for each precision and for the graph as it "
            f"is, found {shown(max(files, key=files.count))} more than once",
        )


def _check_tensors(where: str, tensors: list[GraphTensor] | list[InterfaceTensor]) -> None:
    if not tensors:
        refuse("MANIFEST_TENSOR", f"{where}: expected at least one tensor, found none")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        refuse("MANIFEST_TENSOR", f"{where}: expected every name once, found one twice")
    for tensor in tensors:
        _check_tensor(where, tensor)


def _check_tensor(where: str, tensor: GraphTensor | InterfaceTensor) -> None:
    if not TENSOR_NAME.fullmatch(tensor.name):
        refuse(
            "MANIFEST_TENSOR",
            f"{where}: expected a name of 1-200 printable ASCII characters without spaces, "
            f"found {shown(tensor.name)}",
        )
    if tensor.datatype not in DATATYPES:
        refuse(
            "MANIFEST_TENSOR",
            f"{where}: {tensor.name}: expected a datatype of {', '.join(sorted(DATATYPES))}, "
            f"found {shown(tensor.datatype)}",
        )
    smallest = -1 if isinstance(tensor, InterfaceTensor) else 0
    for size in tensor.shape:
        named = isinstance(size, str) and SIZE_NAME.fullmatch(size)
        sized = isinstance(size, int) and smallest <= size <= MAX_DIMENSION
        if not named and not sized:
            refuse(
                "MANIFEST_TENSOR",
                f"{where}: {tensor.name}: expected sizes of {smallest} to {MAX_DIMENSION} or the "
                f"name of a dynamic dimension, found {shown(size)}",
            )
    if len(tensor.shape) > MAX_RANK:
        refuse(
            "MANIFEST_TENSOR",
            f"{where}: {tensor.name}: expected at most {MAX_RANK} dimensions, "
            f"found {len(tensor.shape)}",
        )


def _check_dynamic(where: str, graph: Graph) -> None:
    used = {
        size
        for tensor in (*graph.inputs, *graph.outputs)
        for size in tensor.shape
        if isinstance(size, str)
    }
    missing, unused = used - graph.dynamic.keys(), graph.dynamic.keys() - used
    if missing:
        refuse(
            "MANIFEST_DYNAMIC",
            f"{where}: expected min, opt and max for every named size, "
            f"found none for {shown(min(missing))}",
            "Add it to `dynamic`",
        )
    if unused:
        refuse(
            "MANIFEST_DYNAMIC",
            f"{where}: expected `dynamic` to name sizes of inputs and outputs only, "
            f"found {shown(min(unused))}",
        )
    for name, bounds in graph.dynamic.items():
        _check_range(f"{where}.dynamic: {shown(name)}", bounds)


def _check_range(where: str, bounds: Range) -> None:
    if not 0 <= bounds.min <= bounds.opt <= bounds.max <= MAX_DIMENSION or bounds.max == 0:
        refuse(
            "MANIFEST_DYNAMIC",
            f"{where}: expected 0 <= min <= opt <= max <= {MAX_DIMENSION} and a max above 0, found "
            f"min {shown(bounds.min)}, opt {shown(bounds.opt)}, max {shown(bounds.max)}",
        )


# --- interface and serving --------------------------------------------------------------------


def _check_interface(interface: Interface) -> None:
    for kind, tensors in (("inputs", interface.inputs), ("outputs", interface.outputs)):
        _check_tensors(f"interface.{kind}", tensors)
        for tensor in tensors:
            check_text(f"interface.{kind}: {tensor.name}: description", tensor.description)


def _check_pipeline(manifest: Manifest, paths: frozenset[str]) -> None:
    if PIPELINE_PATH in paths:
        return
    if manifest.has_code:
        refuse("MANIFEST_PIPELINE", f"files: expected {PIPELINE_PATH} among the files of code/")
    if len(manifest.graphs) != 1:
        refuse(
            "MANIFEST_PIPELINE",
            f"graphs: expected exactly one without {PIPELINE_PATH}, found {len(manifest.graphs)}",
            f"Write {PIPELINE_PATH} to say how the graphs work together",
        )
    (graph,) = manifest.graphs.values()
    for kind in ("inputs", "outputs"):
        _check_agrees(kind, getattr(manifest.interface, kind), getattr(graph, kind), graph.dynamic)


def _check_agrees(
    kind: str,
    interface: list[InterfaceTensor],
    graph: list[GraphTensor],
    dynamic: dict[str, Range],
) -> None:
    declared = {tensor.name: tensor for tensor in graph}
    offered = {tensor.name: tensor for tensor in interface}
    if declared.keys() != offered.keys():
        refuse(
            "MANIFEST_INTERFACE",
            f"interface.{kind}: expected the graph's own names, since there is no "
            f"{PIPELINE_PATH}: {shown(sorted(declared))}, found {shown(sorted(offered))}",
        )
    for name, tensor in offered.items():
        other = declared[name]
        fits = len(tensor.shape) == len(other.shape) and all(
            _size_fits(size, graph_size, dynamic)
            for size, graph_size in zip(tensor.shape, other.shape, strict=True)
        )
        if tensor.datatype != other.datatype or not fits:
            refuse(
                "MANIFEST_INTERFACE",
                f"interface.{kind}: {name}: expected the graph's {other.datatype}{other.shape}, "
                f"found {tensor.datatype}{tensor.shape}",
            )


def _size_fits(size: int, graph_size: int | str, dynamic: dict[str, Range]) -> bool:
    if size == -1:
        return True
    if isinstance(graph_size, int):
        return size == graph_size
    bounds = dynamic[graph_size]
    return bounds.min <= size <= bounds.max
