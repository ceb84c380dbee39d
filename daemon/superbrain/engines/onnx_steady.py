"""ONNX Runtime on the processor, for small tensors that keep their shapes: bound once.

`InferenceSession.run` makes a tensor of every input and an array of every output, each time. For a
small model that takes longer than the graph. Here memory for all of them is bound to the session
once; a run copies its inputs there, and its outputs from there.
`scripts/bench overhead` shows what is gained.
Source: https://onnxruntime.ai/docs/api/python/api_summary.html#iobinding
"""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from superbrain.engines.port import Bound
from superbrain.wire.datatypes import BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superbrain.engines.graph_check import FileTensor
    from superbrain.engines.port import Array

FILLINGS: Final = (0x00, 0xFF)  # with what memory is filled to see whether a run writes to it
MOST_BYTES: Final = 1 << 15  # of all tensors together; to copy more would take what is gained


def keeps_shapes(inputs: Sequence[FileTensor], outputs: Sequence[FileTensor]) -> bool:
    """Whether the shapes of the inputs decide those of the outputs, and none is of text.

    A graph that gives as many rows as it finds things has a size that no input has. One that gives
    an input out again is left alone too: the library does not copy it to where it is bound to.
    """
    if any(one.datatype == BYTES for one in (*inputs, *outputs)):
        return False
    if {one.name for one in inputs} & {one.name for one in outputs}:
        return False
    named = {size for one in inputs for size in one.shape if isinstance(size, str)}
    sizes = [size for one in outputs for size in one.shape]
    return all(size in named or (isinstance(size, int) and size >= 0) for size in sizes)


class SteadySession:
    """Runs a session whose `keeps_shapes`. The same as `InferenceSession.run`, sooner.

    Shapes that come twice running are bound. What is large, or of other shapes, is run by `run`,
    and so is what another thread asks for meanwhile. A file may declare outputs of other shapes
    than it gives, of which `run` only warns; then nothing is bound any more. Nor is it where the
    first memory that was bound is not written to: it would hold whatever was there before.
    """

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self._session = session
        self._run_bound = session.run_with_iobinding
        self._bound: Bound | None = None
        self._binds = True
        self._believed = False
        self._last: dict[str, tuple[int, ...]] = {}
        self._turn = threading.Lock()

    def __call__(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Run once."""
        if not self._binds or not self._turn.acquire(blocking=False):
            return self._run(outputs, feeds)
        try:
            bound = self._bound
            if bound is None or not _fill(bound.inputs, feeds):
                return self._run_and_bind(outputs, feeds)
            try:
                bound.run()
            except Exception:  # noqa: BLE001 - if it is the request's fault, `run` says so
                given = self._run(outputs, feeds)
                self._binds, self._bound = False, None
                return given
            self._last = {}
            return [memory.copy() for memory in bound.outputs.values()]
        finally:
            self._turn.release()

    def bound(self) -> Bound | None:
        """Give the memory that is bound now, if any is. What others bind later takes none of it."""
        return self._bound

    def _run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        given: list[Array] = self._session.run(outputs, feeds)
        return given

    def _run_and_bind(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        given = self._run(outputs, feeds)
        shapes = {name: array.shape for name, array in feeds.items()}
        if shapes != self._last:
            self._last = shapes
        elif sum(array.nbytes for array in (*feeds.values(), *given)) <= MOST_BYTES:
            self._bound = self._bind(outputs, feeds, given)
            if self._bound is not None and not self._believed:
                self._believed = self._binds = writes_all(self._bound, feeds)
                self._bound = self._bound if self._believed else None
        return given

    def _bind(
        self, names: Sequence[str], feeds: Mapping[str, Array], given: Sequence[Array]
    ) -> Bound | None:
        """Bind memory for runs like this one; None where a tensor has no elements."""
        if not all(math.prod(one.shape) for one in (*feeds.values(), *given)):
            return None
        inputs = {name: np.empty(array.shape, array.dtype) for name, array in feeds.items()}
        outputs = {
            name: np.empty(array.shape, array.dtype)
            for name, array in zip(names, given, strict=True)
        }
        binding = self._session.io_binding()
        for name, memory in inputs.items():
            binding.bind_input(name, "cpu", 0, memory.dtype.type, memory.shape, memory.ctypes.data)
        for name, memory in outputs.items():
            binding.bind_output(name, "cpu", 0, memory.dtype.type, memory.shape, memory.ctypes.data)
        return Bound(self._turn, partial(self._run_bound, binding), inputs, outputs)


def _fill(inputs: Mapping[str, Array], feeds: Mapping[str, Array]) -> bool:
    """Copy the feeds; false when they have other names or shapes. The datatypes are the graph's."""
    if len(inputs) != len(feeds):
        return False
    for name, memory in inputs.items():
        array = feeds.get(name)
        if array is None or array.shape != memory.shape:
            return False
        memory[...] = array
    return True


def writes_all(bound: Bound, feeds: Mapping[str, Array]) -> bool:
    """Whether a run writes every element of its outputs: none is as it was, whatever it was."""
    _fill(bound.inputs, feeds)
    elements = [memory.reshape(-1, 1).view(np.uint8) for memory in bound.outputs.values()]
    untouched = [np.ones(len(one), bool) for one in elements]
    for filling in FILLINGS:
        for one in elements:
            one[...] = filling
        try:
            bound.run()
        except Exception:  # noqa: BLE001 - `run` took these feeds: what is bound does not fit
            return False
        for n, one in enumerate(elements):
            untouched[n] &= (one == filling).all(axis=1)
    return not any(same.any() for same in untouched)
