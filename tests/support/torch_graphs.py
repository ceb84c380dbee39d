"""Tiny graphs as TorchScript, with the declaration that `superbrain convert --native` writes.

>>> path = save_script(folder / "add.pt", ADD)
"""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

from superbrain.engines.torchscript import DECLARATION
from superbrain.wire.datatypes import DATATYPES
from tests.support.graphs import TinyGraph

_OPERATORS = {
    "Add": "{0} + {1}",
    "Identity": "{0}",
    "MatMul": "torch.matmul({0}, {1})",
    "Reshape": "torch.reshape({0}, self.sizes({1}))",
}
# How PyTorch calls what no protocol has.
_SPELLED = {"BF16": "bfloat16", "COMPLEX64": "complex64"}
_SIZES = """\
def sizes(self, shape: Tensor) -> List[int]:
    found: List[int] = shape.tolist()
    return found
"""


def save_script(path: Path, graph: TinyGraph, *, declared: bool = True) -> Path:
    """Write a graph as TorchScript; without `declared` as anybody's `torch.jit.save` would."""
    arguments = ", ".join(f"{one.name}: Tensor" for one in graph.inputs)
    lines = [f"def forward(self, {arguments}) -> Dict[str, Tensor]:"]
    for operator, taken, (given,) in graph.nodes:
        lines.append(f"    {given} = {_OPERATORS[operator].format(*taken)}")
    returned = ", ".join(f'"{one.name}": {one.name}' for one in graph.outputs)
    lines.append(f"    return {{{returned}}}")
    return save_source(path, "\n".join(lines) + "\n", _declaration(graph) if declared else "")


def save_source(path: Path, source: str, declaration: str = "") -> Path:
    """Write TorchScript of this text, which defines `forward`."""
    torch = importlib.import_module("torch")
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # PyTorch would rather have another form
        module = torch.jit.script(type("Tiny", (torch.nn.Module,), {})())
        if "self.sizes" in source:
            module.define(_SIZES)
        module.define(source)
        extra = {DECLARATION: declaration} if declaration else {}
        torch.jit.save(module, str(path), _extra_files=extra)
    return path


def _declaration(graph: TinyGraph) -> str:
    sides = {
        side: [
            {
                "name": one.name,
                "datatype": one.datatype if one.datatype in DATATYPES else _SPELLED[one.datatype],
                "shape": one.shape,
            }
            for one in tensors
        ]
        for side, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs))
    }
    return json.dumps({**sides, "metadata": graph.metadata})
