"""Running an engine: page-locked buffers, one stream, asynchronous copies, captured graphs.

Every input and output has its memory for the largest shapes from the start, so addresses never
change. One run is: copy into page-locked memory, upload, execute, download, wait. Outputs whose
size only the data tells get their memory from an allocator while the engine runs.

**Graphs.** Shapes that come again and again are captured: upload, execution and download become one
launch. A captured graph is only valid while its context is left alone, so each gets a context of
its own, which costs the engine's working memory once more; only a few shapes get one. An engine
that cannot be captured, or a GPU without memory for it, runs on without, and says so once.
Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html
"""

from __future__ import annotations

import collections
import importlib
import logging
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from superbrain.domain.tensor_fit import numpy_dtype
from superbrain.engines.device_memory import DeviceError
from superbrain.engines.gpu_errors import run_failed
from superbrain.engines.port import EngineError, EngineRefused, ExecutionFailed, RungUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from superbrain.domain.manifest import Graph, GraphTensor
    from superbrain.engines.device_memory import Device
    from superbrain.engines.port import Array

log = logging.getLogger(__name__)

MOST_GRAPHS: Final = 4
CAPTURE_AFTER: Final = 3  # runs with the same shapes
MOST_SHAPES: Final = 1000  # counted at a time
_NUMPY: Final = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
_ML_DTYPES: Final = {"BF16": "bfloat16", "FP8": "float8_e4m3fn"}
Shapes = tuple[tuple[int, ...], ...]


class Port(NamedTuple):
    """Where one tensor goes in or out: its type here and there, its memory here and there.

    `host` and `address` are empty and 0 for an output whose size only the data tells.
    """

    name: str
    declared: np.dtype[Any]
    inside: np.dtype[Any]
    host: Array
    address: int

    def view(self, shape: tuple[int, ...]) -> Array:
        """See the page-locked memory as an array of `shape`."""
        size = math.prod(shape) * self.inside.itemsize
        return self.host[:size].view(self.inside).reshape(shape)

    def copy(self, shape: tuple[int, ...]) -> Array:
        """Take values out, of the type outside; the next run may then use the memory again."""
        return self.view(shape).astype(self.declared)

    def fill(self, array: Array) -> None:
        """Put values in, of the type inside: what that cannot hold is infinite there."""
        with np.errstate(over="ignore"):
            self.view(array.shape)[...] = array


class Captured(NamedTuple):
    """A graph, the context that it belongs to, and the shapes of the outputs."""

    graph: Any
    context: Any
    outputs: Shapes


class Runner:
    """Runs one engine. Not thread-safe.

    Args:
        trt: the imported library.
        engine: the deserialised engine.
        device: where it runs.
        graph: what the manifest declares, for names and the largest shapes.
        captures: whether to capture graphs here; some runtimes do so by themselves.

    Raises:
        DeviceError: there is not enough device memory.
        EngineRefused: a shape does not fit the engine.
        RungUnavailable: a tensor is of a type that needs ml-dtypes, which is not installed.
    """

    def __init__(
        self,
        trt: Any,  # noqa: ANN401
        engine: Any,  # noqa: ANN401
        device: Device,
        graph: Graph,
        *,
        captures: bool,
    ) -> None:
        self._trt = trt
        self._engine = engine
        self._device = device
        self._captures = captures and device.supports_graphs
        self._context = self._new_context()
        self._inputs = [self._input(one, graph) for one in graph.inputs]
        self._allocators: dict[str, Any] = {}
        self._outputs = self._make_outputs(graph)
        self._attach(self._context)
        self._shapes: Shapes = ()
        self._seen: collections.Counter[Shapes] = collections.Counter()
        self._graphs: dict[Shapes, Captured] = {}

    @property
    def captured_graphs(self) -> int:
        """How many graphs were captured, each for shapes of its own."""
        return len(self._graphs)

    # --- making -------------------------------------------------------------------------------

    def _new_context(self) -> Any:  # noqa: ANN401
        trt, engine = self._trt, self._engine
        if hasattr(trt, "CudaGraphStrategy"):
            config = engine.create_runtime_config()
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context()
        if context is None:
            size = engine.device_memory_size_v2
            raise DeviceError(
                f"expected {size} bytes of device memory for an execution context, found less",
                mend="Retire a model, or let fewer instances serve it",
            )
        return context

    def _input(self, tensor: GraphTensor, graph: Graph) -> Port:
        largest = tuple(
            size if isinstance(size, int) else graph.dynamic[size].max for size in tensor.shape
        )
        if not self._context.set_input_shape(tensor.name, largest):
            raise EngineRefused(f"input {tensor.name!r}: the engine does not take {list(largest)}")
        inside = self._dtype(tensor.name)
        return self._port(tensor, inside, math.prod(largest) * inside.itemsize)

    def _make_outputs(self, graph: Graph) -> list[Port]:
        """Make the outputs, for the largest inputs, whose shapes the context has by now."""
        try:
            lacking = self._context.infer_shapes()
        except RuntimeError as error:
            raise EngineRefused(f"the largest inputs do not go together: {error}") from error
        if lacking:
            raise EngineRefused(f"expected all shapes to follow from the inputs, not {lacking}")
        return [self._output(one) for one in graph.outputs]

    def _output(self, tensor: GraphTensor) -> Port:
        inside = self._dtype(tensor.name)
        if any(size < 0 for size in self._context.get_tensor_shape(tensor.name)):
            self._captures = False
            self._allocators[tensor.name] = _allocator(self._trt, self._device)
            declared = numpy_dtype(tensor.datatype)
            return Port(tensor.name, declared, inside, np.empty(0, np.uint8), 0)
        size = self._context.get_max_output_size(tensor.name)
        if size < 0:
            raise EngineRefused(f"output {tensor.name!r}: the engine does not say how large it is")
        return self._port(tensor, inside, size)

    def _port(self, tensor: GraphTensor, inside: np.dtype[Any], size: int) -> Port:
        host, address = self._device.pinned(size), self._device.allocate(size)
        return Port(tensor.name, numpy_dtype(tensor.datatype), inside, host, address)

    def _dtype(self, name: str) -> np.dtype[Any]:
        kind = self._engine.get_tensor_dtype(name).name
        if kind in _NUMPY:
            return np.dtype(_NUMPY[kind])
        try:
            found: np.dtype[Any] = np.dtype(
                getattr(importlib.import_module("ml_dtypes"), _ML_DTYPES[kind])
            )
        except (ImportError, KeyError) as error:
            raise RungUnavailable(
                f"tensor {name!r}: expected a type that numpy holds, found {kind}: {error}",
                mend="Install ml-dtypes, or export the graph with float32 at its borders",
            ) from error
        return found

    def _attach(self, context: Any) -> None:  # noqa: ANN401
        for port in (*self._inputs, *self._outputs):
            if port.name in self._allocators:
                done = context.set_output_allocator(port.name, self._allocators[port.name])
            else:
                done = context.set_tensor_address(port.name, port.address)
            if not done:
                raise EngineRefused(f"tensor {port.name!r}: the engine does not take its memory")

    # --- running ------------------------------------------------------------------------------

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; inputs fit the manifest.

        Raises:
            ExecutionFailed: the engine or the device failed.
        """
        shapes: Shapes = tuple(inputs[port.name].shape for port in self._inputs)
        for port in self._inputs:
            port.fill(inputs[port.name])
        try:
            captured = self._graphs.get(shapes) or self._capture(shapes)
            if captured is not None:
                self._device.launch(captured.graph)
                found = captured.outputs
            else:
                found = self._execute(shapes)
            self._device.synchronize()
            return self._collect(found)
        except ExecutionFailed:
            raise
        except EngineError as error:
            raise run_failed(
                f"the GPU failed on this input: {error.message}", on_gpu=True
            ) from error

    def _execute(self, shapes: Shapes) -> Shapes:
        if shapes != self._shapes:
            self._shapes = ()  # until all are set, nobody knows which hold
            self._set_shapes(self._context, shapes)
            self._shapes = shapes
        return self._enqueue(self._context, shapes)

    def _set_shapes(self, context: Any, shapes: Shapes) -> None:  # noqa: ANN401
        for port, shape in zip(self._inputs, shapes, strict=True):
            if not context.set_input_shape(port.name, shape):
                raise ExecutionFailed(
                    f"input {port.name!r}: the engine does not take the shape {list(shape)}"
                )

    def _enqueue(self, context: Any, shapes: Shapes) -> Shapes:  # noqa: ANN401
        """Put copies and execution on the stream; the shapes of the outputs as far as known."""
        for port, shape in zip(self._inputs, shapes, strict=True):
            self._device.upload(port.address, port.view(shape).reshape(-1).view(np.uint8))
        if not context.execute_async_v3(self._device.stream):
            raise ExecutionFailed("the engine did not accept its inputs")
        found: list[tuple[int, ...]] = []
        for port in self._outputs:
            shape = tuple(context.get_tensor_shape(port.name))
            found.append(shape)
            if port.name not in self._allocators:
                self._device.download(port.view(shape).reshape(-1).view(np.uint8), port.address)
        return tuple(found)

    def _collect(self, shapes: Shapes) -> dict[str, Array]:
        known = zip(self._outputs, shapes, strict=True)
        return {
            port.name: port.copy(shape) if port.address else self._fetch(port)
            for port, shape in known
        }

    def _fetch(self, port: Port) -> Array:
        """Download an output whose size is only known now."""
        allocator = self._allocators[port.name]
        array = np.empty(allocator.shape, port.inside)
        if array.size:
            self._device.download(array.reshape(-1).view(np.uint8), allocator.address)
            self._device.synchronize()
        return array.astype(port.declared, copy=False)

    # --- graphs -------------------------------------------------------------------------------

    def _capture(self, shapes: Shapes) -> Captured | None:
        """Capture shapes that have come often enough; None where there is no graph for them."""
        if not self._captures or len(self._graphs) >= MOST_GRAPHS:
            return None
        if len(self._seen) >= MOST_SHAPES:
            self._seen.clear()  # those that come often are soon known again
        self._seen[shapes] += 1
        if self._seen[shapes] <= CAPTURE_AFTER:
            return None
        try:
            self._graphs[shapes] = self._record(shapes)
        except EngineError as error:
            self._captures = False
            log.warning("this engine runs without captured graphs: %s", error.message)
            return None
        return self._graphs[shapes]

    def _record(self, shapes: Shapes) -> Captured:
        context = self._new_context()
        self._attach(context)
        self._set_shapes(context, shapes)
        self._enqueue(context, shapes)  # what is set up at the first run must not be captured
        self._device.synchronize()
        self._device.begin_capture()
        try:
            outputs = self._enqueue(context, shapes)
        except EngineError:
            self._abandon_capture()
            raise
        return Captured(self._device.end_capture(), context, outputs)

    def _abandon_capture(self) -> None:
        """End a capture that failed, so that the stream can be used again."""
        try:
            self._device.end_capture()
        except EngineError as error:
            log.debug("the abandoned capture ended with: %s", error.message)


def _allocator(trt: Any, device: Device) -> Any:  # noqa: ANN401
    """Make an allocator for one output; it keeps its memory until a larger one is needed."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = 0
            self.size = 0
            self.shape: tuple[int, ...] = ()

        def reallocate_output(
            self, tensor_name: str, memory: int, size: int, alignment: int
        ) -> int:
            del tensor_name, memory, alignment  # CUDA aligns to 256 bytes, more than is ever asked
            if size > self.size or not self.address:
                try:
                    fresh = device.allocate(size)
                except EngineError:
                    return 0  # which fails the run
                if self.address:
                    device.free(self.address)
                self.address, self.size = fresh, size
            return self.address

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            del stream
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:  # noqa: ANN401
            del tensor_name
            self.shape = tuple(shape)

    return Allocator()
