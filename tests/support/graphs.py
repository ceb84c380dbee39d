"""Tiny real ONNX graphs, made on the spot, for everything that has to load and run one.

>>> path = save_graph(folder / "add.onnx", ADD)
>>> graph = declare(ADD, path="graphs/add.onnx")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from superbrain.domain.manifest import Graph, GraphTensor, Range, Size

OPSET = 17
IR_VERSION = 8
ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
    "COMPLEX64": TensorProto.COMPLEX64,
}


@dataclass(frozen=True)
class TinyGraph:
    """Nodes as (operator, inputs, outputs), and the tensors at the borders."""

    nodes: list[tuple[str, list[str], list[str]]]
    inputs: list[GraphTensor]
    outputs: list[GraphTensor]
    dynamic: dict[str, Range] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def tensor(name: str, datatype: str, *shape: Size) -> GraphTensor:
    """One input or output."""
    return GraphTensor(name, datatype, list(shape))


def save_graph(path: Path, graph: TinyGraph) -> Path:
    """Write a graph as an ONNX file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(*node) for node in graph.nodes],
            "tiny",
            [_value_info(one) for one in graph.inputs],
            [_value_info(one) for one in graph.outputs],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, graph.metadata)
    onnx.save(model, path)
    return path


def save_with_weights(path: Path, *locations: str) -> Path:
    """Write an ONNX file that has a number in each of these other files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = [outside(f"w{index}", one) for index, one in enumerate(locations)]
    path.write_bytes(
        helper.make_model(helper.make_graph([], "g", [], [], weights)).SerializeToString()
    )
    return path


def outside(name: str, location: str) -> TensorProto:
    """Make a number that lies in another file."""
    number = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    number.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        entry = number.external_data.add()
        entry.key, entry.value = key, value
    return number


def declare(graph: TinyGraph, path: str = "graphs/tiny.onnx") -> Graph:
    """Say of a graph in a manifest what its file says."""
    return Graph(path, list(graph.inputs), list(graph.outputs), dict(graph.dynamic))


def identity(datatype: str, *shape: Size) -> TinyGraph:
    """Give back `x` as `y`."""
    return TinyGraph(
        [("Identity", ["x"], ["y"])],
        [tensor("x", datatype, *shape)],
        [tensor("y", datatype, *shape)],
    )


def _value_info(one: GraphTensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(one.name, ELEMENT_TYPES[one.datatype], one.shape)


ADD = TinyGraph(
    [("Add", ["a", "b"], ["sum"])],
    [tensor("a", "FP32", "N", 3), tensor("b", "FP32", "N", 3)],
    [tensor("sum", "FP32", "N", 3)],
    {"N": Range(1, 2, 4)},
    {"character": "a\nb\nü"},
)
MATMUL = TinyGraph(
    [("MatMul", ["left", "right"], ["product"])],
    [tensor("left", "FP32", 2, 3), tensor("right", "FP32", 3, 2)],
    [tensor("product", "FP32", 2, 2)],
)
DOUBLE = TinyGraph(
    [("Add", ["x", "x"], ["y"])],
    [tensor("x", "FP32", "N")],
    [tensor("y", "FP32", "N")],
    {"N": Range(1, 4, 16)},
)
SCALARS = TinyGraph(
    [("Mul", ["a", "b"], ["product"])],
    [tensor("a", "FP64"), tensor("b", "FP64")],
    [tensor("product", "FP64")],
)
#: It gives as many as it finds: a size that no input has.
FOUND = TinyGraph(
    [("NonZero", ["x"], ["places"])],
    [tensor("x", "FP32", "N")],
    [tensor("places", "INT64", 1, "M")],
    {"N": Range(1, 4, 16), "M": Range(0, 4, 16)},
)
