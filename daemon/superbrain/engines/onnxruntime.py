"""ONNX Runtime as an engine, on the processor and on an NVIDIA GPU.

    onnxruntime:cpu         the graph as it is: the rung that every host can run
    onnxruntime:cpu-fp16    its fp16 file; most processors compute it slower, in half the memory
    onnxruntime:cpu-int8    its int8 file
    onnxruntime:cuda        the graph as it is, on a GPU, without rounding to tf32
    onnxruntime:cuda-tf32   the graph as it is, with products rounded to tf32
    onnxruntime:cuda-fp16   its fp16 file

and the three on a GPU once more as `onnxruntime:cuda-graphs…`, with captured CUDA graphs
(onnx_graphs.py).

The library is imported when an engine is asked for, never before, and everything it throws is
translated here and in onnx_session.py. Strings are object arrays of `bytes` outside and UTF-8 text
inside the library.
Source: https://onnxruntime.ai/docs/api/python/api_summary.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from superbrain.domain.rungs import FILE_PRECISIONS, precision_of, uses_gpu
from superbrain.engines.gpu_errors import run_failed
from superbrain.engines.graph_check import FileTensor, InputMismatch, check_graph
from superbrain.engines.onnx_cuda import CUDA_PROVIDER, cuda_options, require_cuda
from superbrain.engines.onnx_graphs import CAPTURES, GraphSession, require_device
from superbrain.engines.onnx_session import (
    CPU_PROVIDER,
    file_tensors,
    import_library,
    open_session,
    said,
)
from superbrain.engines.onnx_steady import SteadySession, keeps_shapes
from superbrain.engines.open_graph import OpenGraph
from superbrain.engines.port import ExecutionFailed, NoDevice, RungUnavailable
from superbrain.wire.datatypes import BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from superbrain.domain.manifest import Graph
    from superbrain.engines.port import Array, Bound

    Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]

_RUNGS = (
    "onnxruntime:cpu",
    "onnxruntime:cpu-fp16",
    "onnxruntime:cpu-int8",
    "onnxruntime:cuda",
    "onnxruntime:cuda-tf32",
    "onnxruntime:cuda-fp16",
    "onnxruntime:cuda-graphs",
    "onnxruntime:cuda-graphs-tf32",
    "onnxruntime:cuda-graphs-fp16",
)
_GRAPHS = ":cuda-graphs"


class OnnxRuntime:
    """The runtime: makes ONNX files runnable through ONNX Runtime."""

    @property
    def rungs(self) -> tuple[str, ...]:
        return _RUNGS

    def needs_file(self, rung: str) -> bool:
        return precision_of(rung) in FILE_PRECISIONS

    def unavailable(self, rung: str) -> str:
        try:
            _library_for(rung)
        except RungUnavailable as error:
            return str(error)
        return ""

    def load(self, rung: str, path: Path, graph: Graph) -> OnnxRuntimeEngine:
        library = _library_for(rung)
        if not uses_gpu(rung):
            return open_engine(library, rung, path, graph, Placement(CPU_PROVIDER, {}))
        options = cuda_options(graph, tf32=precision_of(rung) == "tf32")
        placement = Placement(CUDA_PROVIDER, options, "cuda" if _GRAPHS in rung else "")
        return open_engine(library, rung, path, graph, placement)


class Placement(NamedTuple):
    """Where a graph runs: provider, its options, and the device that runs captured graphs."""

    provider: str
    options: dict[str, str]
    captures_on: str = ""


def open_engine(
    library: Any,  # noqa: ANN401 - the library has no types
    rung: str,
    path: Path,
    graph: Graph,
    placement: Placement,
) -> OnnxRuntimeEngine:
    """Open a graph where `placement` says, and nowhere else; `library` is the imported onnxruntime.

    Raises:
        NoDevice, GraphMismatch, BuildFailed, EngineError: as `Runtime.load`.
    """
    provider = placement.provider
    options = placement.options | (CAPTURES if placement.captures_on else {})
    session = open_session(library, path, provider, graph.threads, options)
    used = session.get_providers()[0]
    if used != provider:
        raise NoDevice(f"{rung}: expected {provider} to run it, found {used}")
    inputs, outputs = file_tensors(path, session)
    check_graph(path.name, graph, inputs, outputs)
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    run: Run = session.run
    if placement.captures_on:
        require_device(path.name, placement.captures_on, session)
        run = GraphSession(library, session, placement.captures_on)
    elif provider == CPU_PROVIDER and keeps_shapes(inputs, outputs):
        run = SteadySession(session)
    return OnnxRuntimeEngine(rung, f"onnxruntime {library.__version__}", graph, run, metadata)


def _library_for(rung: str) -> Any:  # noqa: ANN401 - the library has no types
    """Import the library and see that it can run `rung` here.

    Raises:
        RungUnavailable: it cannot.
    """
    library = import_library()
    if uses_gpu(rung):
        require_cuda(library)
    return library


class OnnxRuntimeEngine(OpenGraph["Run"]):
    """One session, run by `run`. Inputs are checked on every run, the graph was when loaded."""

    def __init__(
        self, rung: str, runtime: str, graph: Graph, run: Run, metadata: Mapping[str, str]
    ) -> None:
        super().__init__(rung, runtime, graph, run, metadata)
        self._texts_in = [tensor.name for tensor in graph.inputs if tensor.datatype == BYTES]
        self._texts_out = [tensor.name for tensor in graph.outputs if tensor.datatype == BYTES]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        misfit, run = self._takes.misfit(inputs), self._runner
        if misfit or run is None:
            raise self._refusal(misfit)
        feeds = inputs if type(inputs) is dict else dict(inputs)
        if self._texts_in:
            feeds = feeds | {name: _to_text(name, feeds[name]) for name in self._texts_in}
        try:
            outputs = dict(zip(self._names, run(self._names, feeds), strict=True))
        except ExecutionFailed:
            raise
        except Exception as error:
            found = f"ONNX Runtime failed on this input: {said(error)}"
            raise run_failed(found, on_gpu=uses_gpu(self.rung)) from error
        for name in self._texts_out:
            outputs[name] = _to_bytes(outputs[name])
        return outputs

    def bound(self) -> Bound | None:
        run = self._runner
        return run.bound() if isinstance(run, SteadySession) else None

    @property
    def captured_graphs(self) -> int:
        """How many CUDA graphs were captured."""
        run = self._runner
        return run.captured_graphs if isinstance(run, GraphSession) else 0


class GraphFacts(NamedTuple):
    """What a graph file says of itself."""

    inputs: list[FileTensor]
    outputs: list[FileTensor]
    metadata: dict[str, str]


def look_at(path: Path) -> GraphFacts:
    """Open an ONNX file just to see what it declares.

    Raises:
        EngineError: as `OnnxRuntime.load`, but for the manifest, which is not there yet.
    """
    library = import_library()
    session = open_session(library, path, CPU_PROVIDER, threads=1)
    inputs, outputs = file_tensors(path, session)
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return GraphFacts(inputs, outputs, metadata)


def _to_text(name: str, array: Array) -> Array:
    texts = np.empty(array.size, dtype=object)
    try:
        texts[:] = [
            element if isinstance(element, str) else element.decode()
            for element in array.reshape(-1).tolist()
        ]
    except UnicodeDecodeError as error:
        raise InputMismatch(f"graph input {name!r}: expected UTF-8 text, found {error}") from error
    except AttributeError as error:
        raise InputMismatch(
            f"graph input {name!r}: expected elements of bytes, found one that is not: {error}"
        ) from error
    return texts.reshape(array.shape)


def _to_bytes(array: Array) -> Array:
    texts = np.empty(array.size, dtype=object)
    texts[:] = [text.encode() for text in array.reshape(-1).tolist()]
    return texts.reshape(array.shape)
