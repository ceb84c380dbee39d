"""ONNX Runtime as an engine: rung `onnxruntime:cpu`, the one every host can run.

The library is imported when an engine is asked for, never before, and everything it throws is
translated here. Sessions are set up for a server that shares its processor: as many threads as
the manifest grants, none of them spinning while it waits.

Strings are object arrays of `bytes` outside and UTF-8 text inside the library.
Source: https://onnxruntime.ai/docs/api/python/api_summary.html
"""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from superbrain.domain.tensor_fit import TensorSet
from superbrain.engines.graph_check import FileTensor, InputMismatch, check_graph
from superbrain.engines.port import EngineError, ExecutionFailed, GraphMismatch, RungUnavailable
from superbrain.wire.datatypes import BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from superbrain.domain.manifest import Graph, GraphTensor
    from superbrain.engines.port import Array

_PROVIDERS = {"onnxruntime:cpu": "CPUExecutionProvider"}
# Its wheels tell their vendor that they are used, and keep an id below the home folder: not here.
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_INSTALL = "Install it with: pip install 'superbrain[cpu]'"
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}
# Types of tensors that numpy cannot hold or the library itself refuses.
_UNSERVABLE = re.compile(r"tensor\((bfloat16|float[468]e\w+|complex\w+|u?int[24])\)")
_UNSERVABLE_MEND = "Export the graph with a Cast to float32 at its inputs and outputs"
_ERRORS_ONLY = 3


class OnnxRuntime:
    """The runtime: makes ONNX files runnable through ONNX Runtime."""

    @property
    def rungs(self) -> tuple[str, ...]:
        return tuple(_PROVIDERS)

    def unavailable(self, rung: str) -> str:
        try:
            library = import_library()
        except RungUnavailable as error:
            return str(error)
        offered = library.get_available_providers()
        if _PROVIDERS[rung] not in offered:
            return f"expected ONNX Runtime with {_PROVIDERS[rung]}, found {', '.join(offered)}"
        return ""

    def load(self, rung: str, path: Path, graph: Graph) -> OnnxRuntimeEngine:
        library = import_library()
        session = open_session(library, path, _PROVIDERS[rung], graph.threads)
        used = session.get_providers()[0]
        if used != _PROVIDERS[rung]:
            raise RungUnavailable(f"{rung}: expected {_PROVIDERS[rung]} to run it, found {used}")
        inputs, outputs = file_tensors(path, session)
        check_graph(path.name, graph, inputs, outputs)
        return OnnxRuntimeEngine(rung, f"onnxruntime {library.__version__}", session, graph)


class OnnxRuntimeEngine:
    """One session. Its inputs are checked on every run, its graph was when it was loaded."""

    def __init__(self, rung: str, runtime: str, session: Any, graph: Graph) -> None:  # noqa: ANN401
        self.rung = rung
        self.runtime = runtime
        self.inputs: tuple[GraphTensor, ...] = tuple(graph.inputs)
        self.outputs: tuple[GraphTensor, ...] = tuple(graph.outputs)
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self._session = session
        self._declared = TensorSet("graph input", graph.inputs, graph.dynamic)
        self._names = [tensor.name for tensor in graph.outputs]
        self._texts_in = [tensor.name for tensor in graph.inputs if tensor.datatype == BYTES]
        self._texts_out = [tensor.name for tensor in graph.outputs if tensor.datatype == BYTES]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        misfit = self._declared.misfit(inputs)
        if misfit:
            raise InputMismatch(misfit)
        feeds = inputs if type(inputs) is dict else dict(inputs)
        if self._texts_in:
            feeds = feeds | {name: _to_text(name, feeds[name]) for name in self._texts_in}
        try:
            outputs = dict(zip(self._names, self._session.run(self._names, feeds), strict=True))
        except Exception as error:
            if self._session is None:
                raise ExecutionFailed("expected an open engine, found a closed one") from error
            raise ExecutionFailed(f"ONNX Runtime failed on this input: {_said(error)}") from error
        for name in self._texts_out:
            outputs[name] = _to_bytes(outputs[name])
        return outputs

    def close(self) -> None:
        self._session = None


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
    session = open_session(library, path, _PROVIDERS["onnxruntime:cpu"], threads=1)
    inputs, outputs = file_tensors(path, session)
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return GraphFacts(inputs, outputs, metadata)


def open_session(library: Any, path: Path, provider: str, threads: int) -> Any:  # noqa: ANN401
    """Open an ONNX file; `library` is the imported onnxruntime.

    Raises:
        GraphMismatch: a tensor type that cannot be served.
        EngineError: ONNX Runtime refused the file.
    """
    options = library.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = library.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        said = _said(error)
        if unservable := _UNSERVABLE.search(said):
            raise _not_servable(path, "a tensor", unservable.group()) from error
        raise EngineError(f"{path.name}: ONNX Runtime refused to load it: {said}") from error
    session.disable_fallback()
    return session


def file_tensors(path: Path, session: Any) -> tuple[list[FileTensor], list[FileTensor]]:  # noqa: ANN401
    """Give the inputs and outputs that the graph file declares.

    Raises:
        GraphMismatch: one of them is no tensor, or of a type numpy cannot hold.
    """
    inputs = [_file_tensor(path, "input", argument) for argument in session.get_inputs()]
    outputs = [_file_tensor(path, "output", argument) for argument in session.get_outputs()]
    return inputs, outputs


def _file_tensor(path: Path, side: str, argument: Any) -> FileTensor:  # noqa: ANN401
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        raise _not_servable(path, f"{side} {argument.name!r}", argument.type)
    return FileTensor(argument.name, datatype, tuple(argument.shape))


def _not_servable(path: Path, what: str, found: str) -> GraphMismatch:
    served = ", ".join(kind.removeprefix("tensor(").rstrip(")") for kind in _DATATYPES)
    if found.startswith("tensor("):
        return GraphMismatch(
            f"{path.name}: {what}: expected a tensor of {served}, found {found}, "
            "which numpy or ONNX Runtime cannot hold",
            mend=_UNSERVABLE_MEND,
        )
    return GraphMismatch(
        f"{path.name}: {what}: expected a tensor of {served}, found {found}",
        mend="Export the graph so that it gives plain tensors (for scikit-learn: zipmap=False)",
    )


def import_library() -> Any:  # noqa: ANN401 - the library has no types
    """Import ONNX Runtime.

    Raises:
        RungUnavailable: it is not installed, or cannot be used.
    """
    os.environ[_NO_TELEMETRY] = "1"  # read when it is imported
    try:
        library = importlib.import_module("onnxruntime")
        _ = library.InferenceSession
    except (ImportError, AttributeError) as error:
        raise RungUnavailable(
            f"expected the package onnxruntime, found none that works: {error}", mend=_INSTALL
        ) from error
    return library


def _said(error: Exception) -> str:
    """What the library said, on one line, without its own preamble."""
    return " ".join(re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).split())


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
