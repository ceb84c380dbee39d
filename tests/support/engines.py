"""Graphs that builders build, and a builder process of one's own.

>>> with BuilderProcess(folder, convolutions()) as builder:
...     engine = builder.build("tensorrt-rtx:fp32")
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from superbrain.bundle.folder import BuiltBundle
from superbrain.bundle.store import Store
from superbrain.domain.ctl_build import (
    ENGINE_SUFFIX,
    Build,
    BuildProgress,
    Built,
    FromBuilder,
    Survey,
    Surveyed,
)
from superbrain.domain.engine import graph_profiles
from superbrain.domain.manifest import Graph, GraphTensor, Range
from superbrain.engines.conversion import convert
from superbrain.wire.datatypes import NUMPY_DTYPES
from tests.support.bundles import KeyPair, build_bundle, sign_key, verified
from tests.support.graphs import tensor
from tests.support.processes import Child

RTX_INSTALLED = importlib.util.find_spec("tensorrt_rtx_bindings") is not None
needs_rtx = pytest.mark.skipif(
    not RTX_INSTALLED, reason="TensorRT for RTX has no package for this platform"
)
Precision = Literal["fp32", "fp16", "qdq"]
CHANNELS = 16
_DYNAMIC = {"n": Range(1, 2, 4), "h": Range(16, 32, 64), "w": Range(16, 32, 64)}


@dataclass(frozen=True)
class SampleGraph:
    """An ONNX model and what a manifest says of it."""

    model: onnx.ModelProto
    inputs: list[GraphTensor]
    outputs: list[GraphTensor]
    dynamic: dict[str, Range]

    def declare(self, path: str) -> Graph:
        """Say it in a manifest."""
        return Graph(path, list(self.inputs), list(self.outputs), dict(self.dynamic))


def convolutions(
    precision: Precision = "fp32",
    *,
    layers: int = 3,
    dynamic: bool = True,
    width: int = CHANNELS,
    side: int = 32,
) -> SampleGraph:
    """A few convolutions of `width` channels over images of any size between bounds.

    Unless it shall be fixed: then `side` is how high and wide they are.
    """
    shape: list[str | int] = ["n", 3, "h", "w"] if dynamic else [1, 3, side, side]
    datatype = "FP16" if precision == "fp16" else "FP32"
    element = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    weights = np.random.default_rng(7)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    last, channels = "x", 3
    for number in range(layers):
        weight = weights.normal(size=(width, channels, 3, 3)) / 10
        kind = np.float16 if precision == "fp16" else np.float32
        constants.append(numpy_helper.from_array(weight.astype(kind), f"w{number}"))
        if precision == "qdq":
            last = _quantised(last, number, nodes, constants)
        nodes += [
            helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
        ]
        last, channels = f"r{number}", width
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"]))
    answer: list[str | int] = [shape[0], width, 1, 1]
    model = _model(
        nodes,
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, answer)],
        constants,
    )
    return SampleGraph(
        model,
        [tensor("x", datatype, *shape)],
        [tensor("y", datatype, *answer)],
        dict(_DYNAMIC) if dynamic else {},
    )


def unknown_operator() -> SampleGraph:
    """A graph that nobody can build."""
    shape = [1, 4]
    model = _model(
        [helper.make_node("Levitate", ["x"], ["y"], domain="nowhere")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [],
    )
    return SampleGraph(model, [tensor("x", "FP32", 1, 4)], [tensor("y", "FP32", 1, 4)], {})


def _quantised(
    name: str, number: int, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> str:
    """Put a tensor through eight bits and back."""
    scale, zero = f"s{number}", f"z{number}"
    constants += [
        numpy_helper.from_array(np.array(0.05, np.float32), scale),
        numpy_helper.from_array(np.array(0, np.int8), zero),
    ]
    nodes += [
        helper.make_node("QuantizeLinear", [name, scale, zero], [f"q{number}"]),
        helper.make_node("DequantizeLinear", [f"q{number}", scale, zero], [f"d{number}"]),
    ]
    return f"d{number}"


def _model(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], constants: list[Any]
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "sample", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def make_sample_bundle(
    folder: Path,
    author: KeyPair,
    graph: SampleGraph,
    **options: Any,  # noqa: ANN401 - what make_sample_folder takes
) -> BuiltBundle:
    """Make a folder as `make_sample_folder` does, build and sign it."""
    return build_bundle(make_sample_folder(folder, graph, **options), author)


def make_sample_folder(
    folder: Path,
    graph: SampleGraph,
    *,
    name: str = "sample",
    version: str = "1.0.0",
    sequence: int = 1,
    ladder: Sequence[str] = ("tensorrt-rtx:fp32", "onnxruntime:cpu"),
    runs: bool = True,
    more: str = "",
    precisions: Sequence[str] = (),
    rtol: float = 1e-3,
) -> Path:
    """Make an author's folder of one graph, with what ONNX Runtime answers as its golden case.

    Without `runs`, which says whether ONNX Runtime can run it, its golden case is all zeros.
    `more`: lines of TOML at the top of bundle.toml; `precisions`: files of the graph in these, made
    from it, besides; `rtol`: how far answers may be off, relatively.
    """
    source = folder / f"{name}-{version}"
    (source / "graphs").mkdir(parents=True)
    path = source / "graphs" / "main.onnx"
    onnx.save(graph.model, path)
    sizes = {size: bounds.min for size, bounds in graph.dynamic.items()}
    asked = {one.name: _numbers(one, sizes) for one in graph.inputs}
    answered = {one.name: np.zeros_like(_numbers(one, sizes)) for one in graph.outputs}
    if runs:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        answered = dict(zip(answered, session.run(list(answered), asked), strict=True))
    for precision in precisions:
        convert(precision, path, path.with_suffix(f".{precision}.onnx"), [asked])
    files = ", ".join(f'{one} = "graphs/main.{one}.onnx"' for one in precisions)
    for side, arrays in (("request", asked), ("response", answered)):
        place = source / "golden" / "case" / side
        place.mkdir(parents=True)
        for tensor_name, array in arrays.items():
            np.save(place / f"{tensor_name}.npy", array)
    recipe = {
        "name": name,
        "version": version,
        "sequence": sequence,
        "ladder": json.dumps(list(ladder)),
        "more": more,
        "inputs": _toml(graph.inputs, open_as=None),
        "outputs": _toml(graph.outputs, open_as=None),
        "dynamic": ", ".join(
            f"{size} = {{ min = {one.min}, opt = {one.opt}, max = {one.max} }}"
            for size, one in graph.dynamic.items()
        ),
        "precisions": f"precisions = {{ {files} }}" if files else "",
        "rtol": rtol,
        "asked": _toml(graph.inputs, open_as=-1),
        "answered": _toml(graph.outputs, open_as=-1),
    }
    (source / "bundle.toml").write_text(_RECIPE.format(**recipe))
    return source


_RECIPE = """\
schema = 1
name = "{name}"
version = "{version}"
sequence = {sequence}
created = 2025-01-31T12:00:00Z
ladder = {ladder}
{more}

[graphs.main]
path = "graphs/main.onnx"
inputs = [{inputs}]
outputs = [{outputs}]
dynamic = {{ {dynamic} }}
{precisions}

[interface]
inputs = [{asked}]
outputs = [{answered}]

[golden.tolerances]
y = {{ kind = "close", rtol = {rtol}, atol = 1e-4 }}
"""


def _toml(tensors: list[GraphTensor], open_as: int | None) -> str:
    """Declare tensors; dynamic sizes by their name, or as `open_as`."""
    lines = []
    for one in tensors:
        shape = [open_as if open_as and isinstance(size, str) else size for size in one.shape]
        text = f'name = "{one.name}", datatype = "{one.datatype}", shape = {json.dumps(shape)}'
        lines.append(f"{{ {text} }}")
    return ", ".join(lines)


def _numbers(one: GraphTensor, sizes: Mapping[str, int]) -> np.ndarray[Any, np.dtype[Any]]:
    shape = [size if isinstance(size, int) else sizes[size] for size in one.shape]
    count = int(np.prod(shape))
    return (np.arange(count) % 17 / 17).reshape(shape).astype(NUMPY_DTYPES[one.datatype])


class BuilderProcess(Child):
    """A real builder, given orders by the test instead of a daemon; its graph is called `main`.

    Args:
        folder: where its bundle and its scratch folder are made.
        graph: what it is to build.
        rewrite: another content of the ONNX file, put there after all was verified.
    """

    def __init__(
        self,
        folder: Path,
        graph: SampleGraph,
        *,
        runs: bool = True,
        rewrite: bytes | None = None,
    ) -> None:
        author = sign_key(folder / "keys")
        bundle = verified(built := make_sample_bundle(folder, author, graph, runs=runs), author)
        store = Store(folder / "store", reserve_bytes=0)
        with built.path.open("rb") as file:
            self.bundle = store.receive(file, bundle)
        self.manifest, self.digest = bundle.manifest, bundle.digest
        if rewrite is not None:
            onnx_file = self.bundle / "graphs" / "main.onnx"
            onnx_file.unlink()
            onnx_file.write_bytes(rewrite)
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.engine = self.scratch / f"main{ENGINE_SUFFIX}"
        command = ["-I", "-m", "superbrain.serve.builder_process"]
        super().__init__(command, msgspec.msgpack.Decoder(FromBuilder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def survey(self, rung: str) -> Surveyed:
        """Let it look at the host."""
        bundle, scratch = str(self.bundle), str(self.scratch)
        return self.order(Survey(rung, bundle, self.digest, scratch, "normal"), Surveyed)

    def build_order(self, time_limit_s: float = 120.0) -> Build:
        """Give the order that a daemon would give."""
        return Build("main", graph_profiles(self.manifest.graphs["main"]), 64, time_limit_s)

    def build(self, rung: str = "tensorrt-rtx:fp32") -> bytes:
        """Let it look, and build an engine; what it wrote."""
        self.survey(rung)
        self.order(self.build_order(), Built)
        return self.engine.read_bytes()

    @property
    def progress(self) -> list[BuildProgress]:
        """Give all that it has told so far."""
        return [one for one in self.unasked if isinstance(one, BuildProgress)]
