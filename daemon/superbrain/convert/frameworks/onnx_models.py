"""ONNX files themselves: nothing is converted, they are only finished like every other graph.

Their own answers are asked of the runtime that hosts use, by the parent.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from .onnx_file import save, sizes_of
from .talk import Array, Order, Refused, Tensor, datatype_of

PACKAGES = ("onnx",)


class OnnxModel:
    """A graph that is there already."""

    def __init__(self, order: Order) -> None:
        try:
            self._proto = onnx.load(order.source)
        except Exception as error:  # protobuf's own, of any kind
            raise Refused(
                "FRAMEWORK_LOAD", f"expected an ONNX file, found: {type(error).__name__}: {error}"
            ) from error
        graph = self._proto.graph
        weights = {one.name for one in graph.initializer}
        self.inputs = [_tensor(one) for one in graph.input if one.name not in weights]
        self.outputs = [one.name for one in graph.output]
        self.notes: list[str] = []

    def answer(self, inputs: dict[str, Array]) -> list[Array]:
        raise Refused("FRAMEWORK_ORDER", f"an ONNX file is asked elsewhere, not here: {inputs}")

    def export(self, path: Path, *_: object) -> None:
        save(self._proto, path)


def load(order: Order) -> OnnxModel:
    """Read an ONNX file and its external data."""
    return OnnxModel(order)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    if not value.type.HasField("tensor_type"):
        raise Refused(
            "FRAMEWORK_TYPE",
            f"input {value.name!r}: expected a tensor, found {value.type.WhichOneof('value')}",
            "Export the graph so that it takes plain tensors",
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [
        size if size is not None else f"{value.name}_{axis}"
        for axis, size in enumerate(sizes_of(value) or [])
    ]
    return Tensor(value.name, datatype_of(dtype), shape)
