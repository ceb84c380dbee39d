"""What the name of a rung says: `RUNTIME:VARIANT`, and in it the device and the precision.

    onnxruntime:cpu        the graph as it is, on the processor
    onnxruntime:cpu-int8   its int8 file, on the processor
    onnxruntime:cuda-tf32  the graph as it is, on a GPU that may round products to tf32
    tensorrt:fp16          its fp16 file, on a GPU

`graph_file` is the one place that tells which file of a bundle a rung loads.

>>> precision_of("onnxruntime:cpu-int8"), precision_of("tensorrt:fp32")
('int8', 'fp32')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from superbrain.domain.manifest import Golden, Graph, Tolerance

#: What a graph may bring a file of its own for.
FILE_PRECISIONS: Final = ("fp16", "bf16", "int8", "fp8")
#: What a runtime makes of the graph as it is.
PLAIN_PRECISIONS: Final = ("fp32", "tf32")
_CPU: Final = "cpu"
#: How a file of TorchScript ends; all others are ONNX.
TORCHSCRIPT_SUFFIX: Final = ".pt"
_TORCHSCRIPT: Final = "torchscript"
#: Runtimes that load ONNX files; of others that are unknown here nothing is said.
_ONNX: Final = ("onnxruntime", "tensorrt", "tensorrt-rtx")


def precision_of(rung: str) -> str:
    """Give the precision that a rung names; empty where it names none: the graph as it is."""
    precision = rung.partition(":")[2].rpartition("-")[2]
    return precision if precision in FILE_PRECISIONS + PLAIN_PRECISIONS else ""


def uses_gpu(rung: str) -> bool:
    """Tell whether a rung runs anywhere but on the processor."""
    return rung.partition(":")[2].partition("-")[0] != _CPU


def graph_file(graph: Graph, rung: str) -> str:
    """Give the path of the file that `rung` loads for this graph.

    The graph's own file of the rung's precision, else the graph as it is.
    """
    return graph.precisions.get(precision_of(rung), graph.path)


def is_torchscript(path: str) -> bool:
    """Tell whether a graph's file is TorchScript."""
    return path.endswith(TORCHSCRIPT_SUFFIX)


def reference_rung(graphs: Mapping[str, Graph]) -> str:
    """Give the rung whose answers are recorded: the graphs as they are, on the processor."""
    native = any(is_torchscript(graph.path) for graph in graphs.values())
    return "torchscript:cpu" if native else "onnxruntime:cpu"


def wrong_form(path: str, rung: str) -> str:
    """Say in one sentence that `rung` does not load files of this form; empty when it may."""
    runtime = rung.partition(":")[0]
    if runtime == _TORCHSCRIPT and not is_torchscript(path):
        return f"{rung}: expected a TorchScript file (NAME{TORCHSCRIPT_SUFFIX}), found {path}"
    if runtime in _ONNX and is_torchscript(path):
        return f"{rung}: expected an ONNX file, found {path}, which is TorchScript"
    return ""


def tolerances_on(golden: Golden, rung: str) -> dict[str, Tolerance]:
    """Give the tolerances that answers of `rung` are held to, by output."""
    return golden.tolerances | golden.precision_tolerances.get(precision_of(rung), {})


def graph_files(graph: Graph) -> tuple[str, ...]:
    """Give the paths of all ONNX files of a graph, the graph as it is first."""
    return (graph.path, *graph.precisions.values())


def missing_precision(graphs: Mapping[str, Graph], rung: str) -> str:
    """Say in one sentence that no graph of a bundle has a file for `rung`; empty when one has.

    A rung of a precision of its own would be another name for the graphs as they are then.
    """
    precision = precision_of(rung)
    if precision not in FILE_PRECISIONS:
        return ""
    if any(precision in graph.precisions for graph in graphs.values()):
        return ""
    brought = sorted({name for graph in graphs.values() for name in graph.precisions})
    return (
        f"{rung}: expected a graph with a file of precision {precision}, "
        f"found {', '.join(brought) or 'no precisions'} in the bundle"
    )
