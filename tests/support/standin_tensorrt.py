"""A stand-in for TensorRT's engines and contexts, for what runs them: its rules, no optimiser.

    engine = Engine(kernels_on(device), device, Affine("FLOAT", (-1, 3), {"x": ((1, 3), (4, 3))}))
    runner = Runner(Library, engine, device, engine.model.declare(), captures=True)

It keeps to what TensorRT documents: shapes outside the profile are refused, a shape is -1 until it
is known, an execution without all shapes and addresses is refused, work is put on the stream and
not waited for, an output whose size the data tells is asked for while it runs. What changes with a
shape is written to the context's own memory by the first execution with it, which must not be
captured; a captured graph reads that memory, so it is only valid while its context lives and is
left alone. What it computes is in standin_models.py, with what in standin_kernels.py. Nothing here
says that TensorRT works.
Source: https://docs.nvidia.com/deeplearning/tensorrt/ (Python API, IExecutionContext)
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from superbrain.engines.device_memory import Device, DeviceError
from tests.support.standin_kernels import ELEMENTS, Kernels
from tests.support.standin_models import Model, Run, Shape

ALIGNMENT: Final = 256


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
        asked = {
            name: self._asked_for(name, shape) for name, shape in self._model.found(run).items()
        }
        if not all(asked.values()):
            return False
        self._model.enqueue(replace(run, addresses={**run.addresses, **asked}))
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
