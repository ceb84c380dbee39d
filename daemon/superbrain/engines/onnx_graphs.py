"""ONNX Runtime on CUDA with captured graphs: shapes that come again are bound, and one launch.

Most small models take a GPU less time than it takes to tell it what to do, kernel by kernel. A
captured CUDA graph tells it all at once. The library captures and replays by itself, once for
each id that a run names, and only where everything is computed on the GPU; it asks that the memory
of inputs and outputs stay where it is. So each shape that comes again gets memory of its own.

**Not every graph can be captured, and one that cannot may break the process.** Where a size depends
on data (NonZero, Compress), the library reads it back in the middle of a run; captured, it reads
what lay there before, and an H200 answered with an illegal access. So this is for rungs of their
own: it happens while the candidate is proven, in its process, and the next rung is tried.

**A captured graph is believed when it has agreed twice** with the session run as usual: on the
inputs that it was captured with, and on those that come next. When the first one does not, the run
fails, and with it the proof. Where one has been believed, shapes that follow and cannot be captured
run as usual, and the log says so once.

Memory of the host is not bound: the library then gives back what lay there before.
docs/gpu.md says what has run where.
Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
"""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from superbrain.engines.gpu_errors import run_failed
from superbrain.engines.onnx_session import said
from superbrain.engines.port import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superbrain.engines.port import Array

log = logging.getLogger(__name__)

CAPTURES: Final = {"enable_cuda_graph": "1"}
MOST_GRAPHS: Final = 4
CAPTURE_AT: Final = 2  # runs with the same shapes
AGREES: Final = 2  # runs that a graph is held to
MOST_SHAPES: Final = 1000  # counted at a time
_GRAPH_ID: Final = "gpu_graph_id"
_NO_GRAPH: Final = -1
_TEXT: Final = "tensor(string)"
_MEND: Final = "Name onnxruntime:cuda behind it in the ladder"
# What an answer may differ by, of its largest value: sums in another order, not another answer.
_APART: Final = {np.dtype(np.float16): 1e-2}
_APART_ELSE: Final = 1e-3

Shapes = tuple[tuple[int, ...], ...]


def require_device(name: str, device: str, session: Any) -> None:  # noqa: ANN401
    """See that all inputs of a file are read, and all outputs written, on the device.

    Raises:
        BuildFailed: one is on the host, where a captured graph would take it from once for all.
    """
    sides = {
        "input": zip(session.get_inputs(), session.get_input_memory_infos(), strict=True),
        "output": zip(session.get_outputs(), session.get_output_memory_infos(), strict=True),
    }
    for side, tensors in sides.items():
        for tensor, memory in tensors:
            if memory.name.lower() != device or tensor.type == _TEXT:
                raise BuildFailed(
                    f"{name}: expected tensors on the GPU, to capture a graph, found that {side} "
                    f"{tensor.name!r} is on the host",
                    mend=_MEND,
                )


class GraphSession:
    """Runs a session that captures graphs. The same as `InferenceSession.run`, sooner.

    Not thread-safe, and to be run by one thread: the library keeps captured graphs by thread.

    Args:
        library: the imported onnxruntime.
        session: opened with `CAPTURES`, with all its tensors on the device.
        device: as ONNX Runtime calls it, "cuda"; on "cpu" all is bound and nothing is captured.
    """

    def __init__(self, library: Any, session: Any, device: str) -> None:  # noqa: ANN401
        self._library = library
        self._session = session
        self._device = device
        self._names = [one.name for one in session.get_inputs()]
        self._as_usual = _options(library, _NO_GRAPH)
        self._captures = True
        self._seen: collections.Counter[Shapes] = collections.Counter()
        self._graphs: dict[Shapes, _Graph] = {}

    @property
    def captured_graphs(self) -> int:
        """How many graphs were captured, each for shapes of its own."""
        return len(self._graphs)

    def __call__(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Run once.

        Raises:
            ExecutionFailed: the first graph cannot be captured, or answers otherwise.
        """
        shapes = tuple(feeds[name].shape for name in self._names)
        graph = self._graphs.get(shapes)
        if graph is not None and graph.agreed >= AGREES:
            return graph.run(feeds)
        given: list[Array] = self._session.run(outputs, feeds, self._as_usual)
        if graph is None:
            if not self._shall_capture(shapes) or not all(one.size for one in given):
                return given
            graph = _Graph(self._library, self._session, self._device, len(self._graphs) + 1)
            graph.bind(feeds, outputs, given)
            self._graphs[shapes] = graph
        self._hold(shapes, graph, feeds, given)
        return given

    def _shall_capture(self, shapes: Shapes) -> bool:
        """Count shapes that have no graph; whether they have come often enough to get one."""
        empty = any(0 in shape for shape in shapes)
        if empty or not self._captures or len(self._graphs) >= MOST_GRAPHS:
            return False
        if len(self._seen) >= MOST_SHAPES:
            self._seen.clear()  # those that come often are soon known again
        self._seen[shapes] += 1
        return self._seen[shapes] >= CAPTURE_AT

    def _hold(
        self, shapes: Shapes, graph: _Graph, feeds: Mapping[str, Array], given: Sequence[Array]
    ) -> None:
        """Run a graph on what was run as usual, and hold it to that answer."""
        try:
            found = graph.run(feeds)
            if not all(map(_alike, found, given)):
                raise ValueError("it answers otherwise than the session it is of")
        except Exception as error:
            del self._graphs[shapes]
            self._captures = False
            if not any(one.agreed >= AGREES for one in self._graphs.values()):
                why = f"expected a CUDA graph of this engine, found: {said(error)}"
                raise run_failed(why, _MEND, on_gpu=True) from error
            log.warning("no more CUDA graphs are captured of this engine: %s", said(error))
        else:
            graph.agreed += 1


class _Graph:
    """One captured graph: the memory that its inputs and outputs lie in, and its id."""

    def __init__(self, library: Any, session: Any, device: str, number: int) -> None:  # noqa: ANN401
        self.agreed = 0
        self._library = library
        self._device = device
        self._session = session
        self._binding = session.io_binding()
        self._options = _options(library, number)
        self._inputs: dict[str, Any] = {}
        self._outputs: list[Any] = []

    def bind(
        self, feeds: Mapping[str, Array], names: Sequence[str], given: Sequence[Array]
    ) -> None:
        """Take memory on the device for inputs and outputs like these."""
        for name, array in feeds.items():
            self._inputs[name] = self._on_device(array)
            self._binding.bind_ortvalue_input(name, self._inputs[name])
        for name, array in zip(names, given, strict=True):
            self._outputs.append(self._on_device(array))
            self._binding.bind_ortvalue_output(name, self._outputs[-1])

    def _on_device(self, array: Array) -> Any:  # noqa: ANN401
        return self._library.OrtValue.ortvalue_from_shape_and_type(
            list(array.shape), array.dtype.type, self._device, 0
        )

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Copy the feeds there, run, and copy the outputs back."""
        for name, value in self._inputs.items():
            value.update_inplace(np.require(feeds[name], requirements="C"))
        self._session.run_with_iobinding(self._binding, self._options)
        return [self._from_device(value) for value in self._outputs]

    def _from_device(self, value: Any) -> Array:  # noqa: ANN401
        array: Array = value.numpy()
        return array.copy() if self._device == "cpu" else array  # there it is the same memory


def _options(library: Any, graph_id: int) -> Any:  # noqa: ANN401
    options = library.RunOptions()
    options.add_run_config_entry(_GRAPH_ID, str(graph_id))
    return options


def _alike(found: Array, given: Array) -> bool:
    """Whether two runs gave the same answer; sums may have been made in another order."""
    if found.shape != given.shape or not np.issubdtype(given.dtype, np.floating):
        return np.array_equal(found, given)
    finite = np.abs(given[np.isfinite(given)], dtype=np.float64)
    apart = _APART.get(given.dtype, _APART_ELSE) * float(finite.max(initial=0.0))
    return np.allclose(found.astype(np.float64), given, rtol=0.0, atol=apart, equal_nan=True)
