"""What stand-in engines compute: models with a profile, their shapes, and the kernels of each.

model = Affine("FLOAT", (-1, 3), {"x": ((1, 3), (4, 3))})   # y = 2 x + n
graph = model.declare()                                     # as a manifest has it
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from superbrain.domain.manifest import Graph, GraphTensor, Range
from superbrain.engines.tensorrt_flavour import DATATYPES
from tests.support.standin_kernels import Kernels

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape]]  # the smallest and the largest of each input
_COUNT: Final = np.dtype(np.int64)


@dataclass(frozen=True)
class Border:
    """An input or output: its type, its shape with -1 where it is not fixed, its names there."""

    kind: str
    shape: Shape
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One execution as a model sees it: whose memory is where, and how large."""

    kernels: Kernels
    shapes: Mapping[str, Shape]
    addresses: Mapping[str, int]
    factors: int
    workspace: int


@dataclass(frozen=True)
class Model:
    """What an engine computes. `wait_us`: how long it does nothing first, on a GPU."""

    profile: Profile
    inputs: Mapping[str, Border]
    outputs: Mapping[str, Border]
    wait_us: int = 0

    def bounds(self, name: str) -> tuple[Shape, Shape]:
        """Give the smallest and the largest shape of an input."""
        fixed = self.inputs[name].shape
        return self.profile.get(name, (fixed, fixed))

    def shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Say how large the outputs are; -1 where the data tells.

        Raises:
            RuntimeError: the inputs do not fit one another.
        """
        raise NotImplementedError

    def factors(self, inputs: Mapping[str, Shape]) -> tuple[float, float]:
        """Say what follows from the shapes, to be written into the context's memory."""
        del inputs
        return 0.0, 0.0

    def found(self, run: Run) -> dict[str, Shape]:
        """Wait for the stream and say how large those outputs are whose size the data tells."""
        del run
        return {}

    def enqueue(self, run: Run) -> None:
        """Put the work on the stream, all sizes and addresses being known."""
        raise NotImplementedError

    def declare(self) -> Graph:
        """Say in a manifest what goes in and comes out."""
        dynamic = {
            name: Range(smallest[axis], smallest[axis], largest[axis])
            for key, (smallest, largest) in self.profile.items()
            for axis, name in enumerate(self.inputs[key].names)
            if name
        }
        inputs = [_declared(name, one) for name, one in self.inputs.items()]
        outputs = [_declared(name, one) for name, one in self.outputs.items()]
        return Graph("graphs/standin.onnx", inputs, outputs, dynamic)


def _declared(name: str, border: Border) -> GraphTensor:
    named = itertools.zip_longest(border.shape, border.names)
    shape = [
        size if size >= 0 else known or f"{name}{at}" for at, (size, known) in enumerate(named)
    ]
    return GraphTensor(name, DATATYPES[border.kind], shape)


class Affine(Model):
    """`y = 2 x + n`, n being the first size: element by element, in two kernels."""

    def __init__(self, kind: str, shape: Shape, profile: Profile, *, wait_us: int = 0) -> None:
        names = tuple(f"d{at}" if size < 0 else "" for at, size in enumerate(shape))
        border = Border(kind, shape, names)
        super().__init__(profile, {"x": border}, {"y": border}, wait_us)

    def shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        return {"y": inputs["x"]}

    def factors(self, inputs: Mapping[str, Shape]) -> tuple[float, float]:
        shape = inputs["x"]
        return 2.0, float(shape[0] if shape else 1)

    def enqueue(self, run: Run) -> None:
        kind, count = self.inputs["x"].kind, math.prod(run.shapes["x"])
        run.kernels.launch(f"widen_{kind}", count, run.addresses["x"], run.workspace)
        run.kernels.launch(f"narrow_{kind}", count, run.workspace, run.addresses["y"], run.factors)


class WeightedSum(Model):
    """`sum = a + 10 b`, both of one shape."""

    def __init__(self, most: int = 4, *, of_b: tuple[int, int] = (1, 4)) -> None:
        profile = {"a": ((1,), (most,)), "b": ((of_b[0],), (of_b[1],))}
        inputs = {"a": Border("FLOAT", (-1,), ("n",)), "b": Border("FLOAT", (-1,), ("m",))}
        super().__init__(profile, inputs, {"sum": Border("FLOAT", (-1,), ("n",))})

    def shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        if inputs["a"] != inputs["b"]:
            raise RuntimeError(f"expected two tensors of one shape, found {dict(inputs)}")
        return {"sum": inputs["a"]}

    def enqueue(self, run: Run) -> None:
        a, b, total = (run.addresses[name] for name in ("a", "b", "sum"))
        run.kernels.launch("scaled_sum", math.prod(run.shapes["a"]), a, b, total, 10.0)


class RowSums(Model):
    """The sum of each row; `left`: the first element as often as rows are missing to the most."""

    def __init__(self, most_rows: int, most_columns: int, *, least: int = 1) -> None:
        profile = {"x": ((least, least), (most_rows, most_columns))}
        outputs = {"sums": Border("FLOAT", (-1,), ("rows",)), "left": Border("FLOAT", (-1,))}
        inputs = {"x": Border("FLOAT", (-1, -1), ("rows", "columns"))}
        super().__init__(profile, inputs, outputs)

    def shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        rows = inputs["x"][0]
        return {"sums": (rows,), "left": (self.profile["x"][1][0] - rows,)}

    def enqueue(self, run: Run) -> None:
        rows, columns = run.shapes["x"]
        x = run.addresses["x"]
        run.kernels.launch("row_sums", rows, x, run.addresses["sums"], columns)
        run.kernels.launch("fill", run.shapes["left"][0], run.addresses["left"], x)


class Positives(Model):
    """`found`: those elements that are above zero; how many there are, only the data tells."""

    def __init__(self, most: int, *, wait_us: int = 0) -> None:
        super().__init__(
            {"x": ((1,), (most,))},
            {"x": Border("FLOAT", (-1,), ("n",))},
            {"found": Border("FLOAT", (-1,))},
            wait_us,
        )

    def shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        del inputs
        return {"found": (-1,)}

    def found(self, run: Run) -> dict[str, Shape]:
        arguments = (run.addresses["x"], run.shapes["x"][0], run.workspace)
        run.kernels.launch("count_positive", 1, *arguments)
        return {"found": (int(run.kernels.read(run.workspace, _COUNT)),)}

    def enqueue(self, run: Run) -> None:
        arguments = (run.addresses["x"], run.shapes["x"][0], run.addresses["found"])
        run.kernels.launch("take_positive", 1, *arguments)
