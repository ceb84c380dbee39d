"""Graph, goldens and code: whole, rightly signed, and not what it promises when it is run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.corpus.cases import enter
from tests.corpus.draft import Draft

SECTION = "graph, goldens and code"
GRAPH = "graphs/main.onnx"
RESPONSE = "golden/one/response/y.npy"


def replaced(
    name: str, codes: str, says: str, note: str, path: str, data: Callable[[], bytes]
) -> None:
    """Enter a case with another file."""
    enter(SECTION, name, codes, says, note, lambda draft: draft.replace(path, data()))


def code(name: str, codes: str, says: str, note: str, source: str) -> None:
    """Enter a case with this code/pipeline.py."""

    def bend(draft: Draft) -> None:
        draft.add("code/pipeline.py", source.encode())
        if "TIMED_OUT" in codes.split():  # a busy machine loads what does not hang in its own time
            draft.manifest["serving"] = {"load_timeout_s": 3}

    enter(SECTION, name, codes, says, note, bend)


def npy(array: Any) -> bytes:  # noqa: ANN401
    """Write an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def model(
    kind: str = "Identity",
    *,
    x: tuple[str, list[Any]] = ("FLOAT", ["batch", 4]),
    y: tuple[str, list[Any]] = ("FLOAT", ["batch", 4]),
    domain: str = "",
    names: tuple[str, str] = ("x", "y"),
) -> bytes:
    """Write a graph of one node."""
    infos = [
        helper.make_tensor_value_info(name, TensorProto.DataType.Value(datatype), shape)
        for name, (datatype, shape) in zip(names, (x, y), strict=True)
    ]
    node = helper.make_node(kind, [names[0]], [names[1]], domain=domain)
    graph = helper.make_graph([node], "main", infos[:1], infos[1:])
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return made


def outside(location: str) -> bytes:
    """Write a graph that has its weights in another file."""
    proto = onnx.ModelProto.FromString(model("Add"))
    proto.graph.node[0].input.append("w")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    proto.graph.initializer.append(weight)
    written: bytes = proto.SerializeToString()
    return written


X = np.arange(4, dtype=np.float32).reshape(1, 4) / 8 - 1
MISMATCH = "GOLDEN_MISMATCH MISMATCHED"
PIPELINE = """\
class Pipeline:
    def __init__(self, bundle): {init}
    def preprocess(self, request): {before}
    def postprocess(self, outputs, request): {after}
"""


def pipeline(
    init: str = "pass", before: str = "return request", after: str = "return outputs"
) -> str:
    """Write a pipeline."""
    return PIPELINE.format(init=init, before=before, after=after)


G = "GraphMismatch EngineError RungUnavailable"
replaced("graph-of-noise", G, "main.onnx", "No graph at all.", GRAPH, lambda: bytes(range(256)) * 9)
replaced("graph-empty", G, "main.onnx", "A file of no bytes.", GRAPH, lambda: b"")
replaced("graph-text", G, "main.onnx", "A text.", GRAPH, lambda: b"ir_version: 8\n")
replaced("graph-cut-short", G, "main.onnx", "Half a graph.", GRAPH, lambda: model()[:40])
replaced(
    "graph-with-an-unknown-operator",
    G,
    "main.onnx",
    "An operator that no runtime has.",
    GRAPH,
    lambda: model("FormatDisk"),
)
replaced(
    "graph-with-a-custom-operator",
    G,
    "main.onnx",
    "An operator of a library that would have to be loaded.",
    GRAPH,
    lambda: model("Run", domain="com.evil"),
)
replaced(
    "graph-with-another-input-name",
    G,
    "'z'",
    "The input has another name than the manifest says.",
    GRAPH,
    lambda: model(names=("z", "y")),
)
replaced(
    "graph-with-another-datatype",
    G,
    "FP64",
    "The input is of another datatype.",
    GRAPH,
    lambda: model(x=("DOUBLE", ["batch", 4]), y=("DOUBLE", ["batch", 4])),
)
replaced(
    "graph-with-another-shape",
    G,
    "found FP32",
    "The input has another size.",
    GRAPH,
    lambda: model(x=("FLOAT", ["batch", 5]), y=("FLOAT", ["batch", 5])),
)
for label, location in {
    "above": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "unlisted": "weights.bin",
    "of-the-golden": "../golden/one/request/x.npy",
}.items():
    replaced(
        f"graph-weights-{label}",
        G,
        "main.onnx",
        f"Weights in {location}.",
        GRAPH,
        lambda location=location: outside(location),  # type: ignore[misc]
    )

T = "TENSOR_FILE TensorFileError GOLDEN_MISMATCH"
replaced("golden-other-value", MISMATCH, "case 'one'", "A wrong number.", RESPONSE, lambda: npy(X))
replaced(
    "golden-other-shape",
    MISMATCH,
    "expected",
    "A wrong shape.",
    RESPONSE,
    lambda: npy(np.zeros((2, 4), np.float32)),
)
replaced(
    "golden-other-datatype",
    MISMATCH,
    "FP32",
    "A wrong datatype.",
    RESPONSE,
    lambda: npy(X.astype(np.float64)),
)
replaced(
    "golden-nan", MISMATCH, "case 'one'", "No number.", RESPONSE, lambda: npy(X * np.float32("nan"))
)
replaced(
    "golden-pickled",
    MISMATCH,
    "case 'one'",
    "An array that unpacks to a call of a function.",
    RESPONSE,
    lambda: npy(np.array([{"a": 1}], dtype=object)),
)
replaced("golden-no-array", MISMATCH, "case 'one'", "A text.", RESPONSE, lambda: b"1, 2, 3\n")
replaced("golden-cut-short", MISMATCH, "case 'one'", "Half.", RESPONSE, lambda: npy(X)[:-7])
replaced(
    "golden-header-lies",
    MISMATCH,
    "case 'one'",
    "A header that promises a terabyte.",
    RESPONSE,
    lambda: npy(X).replace(b"(1, 4)", b"(9**9,)".ljust(6)[:6]),
)
replaced(
    "golden-header-is-code",
    MISMATCH,
    "case 'one'",
    "A header that would be executed by a careless reader.",
    RESPONSE,
    lambda: npy(X).replace(b"False", b"abs(1"),
)

C = "CODE_DOES_NOT_IMPORT CODE_NO_PIPELINE CODE_DOES_NOT_CONSTRUCT CODE_SHADOWS_MODULE"
code("code-syntax-error", C, "pipeline.py", "No Python.", "class Pipeline(:\n")
code("code-import-raises", C, "pipeline.py", "It raises.", "raise RuntimeError('no')\n")
code("code-import-ends", C, "pipeline.py", "It asks to end.", "raise SystemExit(0)\n")
code("code-import-missing", C, "nowhere", "A module that is not there.", "import nowhere\n")
code("code-without-pipeline", C, "Pipeline", "No class of that name.", "x = 1\n")
code("code-pipeline-is-no-class", C, "Pipeline", "A function.", "def Pipeline(b): return b\n")
code(
    "code-without-steps",
    C,
    "preprocess",
    "No steps.",
    "class Pipeline:\n    def __init__(s, b): ...\n",
)
code("code-construct-raises", C, "construct", "It raises.", pipeline(init="1 / 0"))
code(
    "code-import-dies",
    "DIED",
    "exited with status 7",
    "The process ends.",
    "import os; os._exit(7)\n",
)
code(
    "code-import-crashes",
    "DIED",
    "SIGSEGV",
    "The process is killed by a wrong address.",
    "import ctypes; ctypes.string_at(0)\n",
)
code("code-import-hangs", "TIMED_OUT", "within", "It never returns.", "while True: pass\n")
code("code-preprocess-raises", MISMATCH, "preprocess", "It raises.", pipeline(before="1 / 0"))
code("code-preprocess-of-nothing", MISMATCH, "dict", "It gives nothing.", pipeline(before="pass"))
code("code-postprocess-raises", MISMATCH, "postprocess", "It raises.", pipeline(after="1 / 0"))
code(
    "code-response-of-another-name",
    MISMATCH,
    "'z'",
    "The response is not what the interface says.",
    pipeline(after="return {'z': outputs['y']}"),
)
code(
    "code-response-too-much",
    MISMATCH,
    "'z'",
    "More than the interface says.",
    pipeline(after="return outputs | {'z': 1}"),
)
code(
    "code-response-of-another-datatype",
    MISMATCH,
    "FP32",
    "Another datatype than the interface says.",
    pipeline(after="return {'y': outputs['y'].astype('float64')}"),
)
code(
    "code-postprocess-dies",
    "DIED",
    "exited with status 7",
    "The process ends.",
    pipeline(after="__import__('os')._exit(7)"),
)
code(
    "code-postprocess-hangs",
    "TIMED_OUT",
    "within",
    "It never returns.",
    pipeline(after="\n        while True: pass"),
)


def shadowing(name: str, path: str) -> None:
    """Enter a case with a module that has the name of another."""

    def bend(draft: Draft) -> None:
        draft.add(path, b"import os; os.open('canary', os.O_CREAT)\n")
        draft.add("code/pipeline.py", pipeline().encode())

    note = "A module that others would import instead of the real one."
    enter(SECTION, name, C, path.removeprefix("code/").split(".")[0].split("/")[0], note, bend)


shadowing("code-shadows-numpy", "code/numpy.py")
shadowing("code-shadows-json", "code/json.py")
shadowing("code-shadows-superbrain", "code/superbrain/__init__.py")
