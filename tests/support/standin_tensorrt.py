"""A stand-in for TensorRT's engines and contexts, for what runs them: its rules, no optimiser.

    engine = Engine(kernels_on(device), device, Affine("FLOAT", (-1, 3), {"x": ((1, 3), (4, 3))}))
    runner = Runner(Library, engine, device, engine.model.declare(), captures=True)

It keeps to what TensorRT documents: shapes outside the profile are refused, a shape is -1 until it
is known, an execution without all shapes and addresses is refused, work is put on the stream and
not waited for, an output whose size the data tells is asked for while it runs. What changes with a
shape is written to the context's own memory by the first execution with it, which must not be
captured; a captured graph reads that memory, so it is only valid while its context lives and is
left alone. What computes is a few kernels of our own (standin_kernels.py). Nothing here says that
TensorRT works.
Source: https://docs.nvidia.com/deeplearning/tensorrt/ (Python API, IExecutionContext)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from superbrain.domain.manifest import Graph, GraphTensor, Range
from superbrain.engines.device_memory import Device, DeviceError
from superbrain.engines.tensorrt_flavour import DATATYPES
from tests.support.standin_kernels import ELEMENTS, Kernels

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape]]  # the smallest and the largest of each input
ALIGNMENT: Final = 256
_COUNT: Final = np.dtype(np.int64)


class IOutputAllocator:
    """What an application derives from; its constructor must be called, as pybind11 wants."""

    def __init__(self) -> None:
        self.made = True


class Library:
    """TensorRT, as far as the names go that are used while an engine runs."""

    IOutputAllocator = IOutputAllocator


class RtxLibrary(Library):
    """TensorRT for RTX, which captures graphs by itself."""

    CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole")


# --- models --------------------------------------------------------------------------------------


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

    def enqueue(self, run: Run) -> None:
        """Put the work on the stream, all sizes being known."""
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

    def count(self, run: Run) -> Shape:
        """Find out how large the output is, which the stream is waited for."""
        arguments = (run.addresses["x"], run.shapes["x"][0], run.workspace)
        run.kernels.launch("count_positive", 1, *arguments)
        return (int(run.kernels.read(run.workspace, _COUNT)),)

    def enqueue(self, run: Run) -> None:
        arguments = (run.addresses["x"], run.shapes["x"][0], run.addresses["found"])
        run.kernels.launch("take_positive", 1, *arguments)


# --- engine and context --------------------------------------------------------------------------


@dataclass(eq=False)
class Engine:
    """A built engine, and how it shall misbehave.

    `most_contexts`: no memory for more; `refuses_capture`: it does not run while it is captured;
    `fails`: so many executions are refused; `asks_async`: which of the allocator's two functions
    it asks, and `asks_least` for how much (1 is what is documented); `kinds`: types of tensors as
    the library names them, where they are others.
    """

    kernels: Kernels
    device: Device
    model: Model
    most_contexts: int = 100
    refuses_capture: bool = False
    fails: int = 0
    asks_async: bool = True
    asks_least: int = 1
    kinds: dict[str, str] = field(default_factory=dict)
    contexts: int = 0
    strategies: list[str] = field(default_factory=list)

    @property
    def device_memory_size_v2(self) -> int:
        """What a context takes: factors, and an element in float64 for each of the largest."""
        elements = [math.prod(self.model.bounds(name)[1]) for name in self.model.inputs]
        return ALIGNMENT + 8 * max(1, *elements)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        borders = {**self.model.inputs, **self.model.outputs}
        return SimpleNamespace(name=self.kinds.get(name) or borders[name].kind)

    def create_runtime_config(self) -> SimpleNamespace:
        return SimpleNamespace(cuda_graph_strategy=RtxLibrary.CudaGraphStrategy.DISABLED)

    def create_execution_context(self, config: SimpleNamespace | None = None) -> Context | None:
        if self.contexts >= self.most_contexts:
            return None
        try:
            memory = self.device.allocate(self.device_memory_size_v2)
        except DeviceError:
            return None
        self.strategies.append(config.cuda_graph_strategy if config else "")
        return Context(self, memory)


class Context:
    """An execution context: shapes, addresses, and memory of its own, freed with it."""

    def __init__(self, engine: Engine, memory: int) -> None:
        self._engine = engine
        self._model = engine.model
        self._memory = memory
        self._shapes = {name: one.shape for name, one in self._model.inputs.items()}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._current = False  # whether the memory has what follows from the shapes
        engine.contexts += 1

    def __del__(self) -> None:
        self._engine.contexts -= 1
        self._engine.device.free(self._memory)

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        border = self._model.inputs.get(name)
        if border is None or len(shape) != len(border.shape):
            return False
        limits = zip(*self._model.bounds(name), strict=True)
        if not all(low <= size <= high for size, (low, high) in zip(shape, limits, strict=True)):
            return False
        self._current = self._current and self._shapes[name] == shape
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        if name in self._shapes:
            return self._shapes[name]
        if self._unknown():
            return self._model.outputs[name].shape
        return self._model.shapes(self._shapes)[name]

    def infer_shapes(self) -> list[str]:
        if unknown := self._unknown():
            return unknown
        self._model.shapes(self._shapes)
        return []

    def get_max_output_size(self, name: str) -> int:
        if name not in self._model.outputs or self._unknown():
            return -1
        sizes = [math.prod(shapes[name]) for shapes in self._corners()]
        return max(sizes) * ELEMENTS[self._model.outputs[name].kind].itemsize

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in {*self._model.inputs, *self._model.outputs} or address % ALIGNMENT:
            return False
        self._addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:  # noqa: ANN401
        if name not in self._model.outputs or not allocator.made:
            return False
        self._allocators[name] = allocator
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine, kernels = self._engine, self._engine.kernels
        if stream != engine.device.stream or self._unknown() or not self._has_memory():
            return False
        try:
            shapes = self._shapes | self._model.shapes(self._shapes)
        except RuntimeError:
            return False
        if engine.fails:
            engine.fails -= 1
            return False
        if kernels.capturing and (engine.refuses_capture or not self._current or self._allocators):
            return False
        self._write_factors()
        if self._model.wait_us:
            kernels.launch("wait_us", 1, self._model.wait_us)
        return self._run(
            Run(kernels, shapes, self._addresses, self._memory, self._memory + ALIGNMENT)
        )

    def _unknown(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if any(size < 0 for size in shape)]

    def _has_memory(self) -> bool:
        names = {*self._model.inputs, *self._model.outputs}
        return all(self._addresses.get(name) or name in self._allocators for name in names)

    def _corners(self) -> list[dict[str, Shape]]:
        """Give the outputs' shapes for all smallest and largest sizes that fit one another."""
        found = []
        bounds = [self._model.bounds(name) for name in self._shapes]
        edges = [itertools.product(*map(set, zip(*pair, strict=True))) for pair in bounds]
        for inputs in itertools.product(*edges):
            try:
                found.append(self._model.shapes(dict(zip(self._shapes, inputs, strict=True))))
            except RuntimeError:
                continue
        return found

    def _write_factors(self) -> None:
        if not self._current:
            factors = np.array(self._model.factors(self._shapes), np.float64)
            self._engine.kernels.write(self._memory, factors)
            self._current = True

    def _run(self, run: Run) -> bool:
        if isinstance(self._model, Positives):
            shape = self._model.count(run)
            address = self._asked_for("found", shape)
            if not address:
                return False
            addresses = {**run.addresses, "found": address}
            run = Run(run.kernels, run.shapes, addresses, run.factors, run.workspace)
        self._model.enqueue(run)
        return True

    def _asked_for(self, name: str, shape: Shape) -> int:
        """Ask for memory as TensorRT does, and tell the shape afterwards."""
        size = math.prod(shape) * ELEMENTS[self._model.outputs[name].kind].itemsize
        size = max(self._engine.asks_least, size)
        allocator, known = self._allocators.get(name), self._addresses.get(name, 0)
        if allocator is None:
            return known
        if self._engine.asks_async:
            stream = self._engine.device.stream
            found = allocator.reallocate_output_async(name, known, size, ALIGNMENT, stream)
        else:
            found = allocator.reallocate_output(name, known, size, ALIGNMENT)
        if found:
            allocator.notify_shape(name, shape)
        return int(found)
