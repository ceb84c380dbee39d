"""Sessions of ONNX Runtime: the library, how a file is opened with it, and what the file declares.

The library is imported when it is asked for, never before, and everything it throws is translated
here. Sessions are set up for a server that shares its processor: as many threads as the manifest
grants, none of them spinning while it waits.
"""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Any

from superbrain.engines.graph_check import FileTensor
from superbrain.engines.port import EngineError, GraphMismatch, NotInstalled
from superbrain.wire.datatypes import BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CPU_PROVIDER = "CPUExecutionProvider"
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


def open_session(
    library: Any,  # noqa: ANN401 - the library has no types
    path: Path,
    provider: str,
    threads: int,
    options: Mapping[str, str] | None = None,
) -> Any:  # noqa: ANN401
    """Open an ONNX file; `library` is the imported onnxruntime, `options` are the provider's.

    Raises:
        GraphMismatch: a tensor type that cannot be served.
        EngineError: ONNX Runtime refused the file.
    """
    session_options = library.SessionOptions()
    session_options.intra_op_num_threads = max(1, threads)
    session_options.inter_op_num_threads = 1
    session_options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    session_options.log_severity_level = _ERRORS_ONLY
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session_options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = library.InferenceSession(
            str(path), session_options, providers=[(provider, dict(options or {}))]
        )
    except Exception as error:
        found = said(error)
        if unservable := _UNSERVABLE.search(found):
            raise _not_servable(path, "a tensor", unservable.group()) from error
        raise EngineError(f"{path.name}: ONNX Runtime refused to load it: {found}") from error
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


def import_library() -> Any:  # noqa: ANN401
    """Import onnxruntime.

    Raises:
        NotInstalled: it is not there, or does not work.
    """
    os.environ[_NO_TELEMETRY] = "1"  # read when it is imported
    try:
        library = importlib.import_module("onnxruntime")
        _ = library.InferenceSession
    except (ImportError, AttributeError) as error:
        raise NotInstalled(
            f"expected the package onnxruntime, found none that works: {error}", mend=_INSTALL
        ) from error
    return library


def said(error: Exception) -> str:
    """What the library said, on one line, without its own preamble."""
    return " ".join(re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).split())
