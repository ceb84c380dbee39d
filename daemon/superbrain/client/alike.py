"""Requests like the last one of the same model: written in one step instead of one for each tensor.

A program asks for the same names, datatypes and shapes over and over. Whatever differs in anything
else than the values goes the long way by `calls.infer`, which is also the one that finds faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from superbrain.client import calls
from superbrain.client.result import Result, read_result
from superbrain.transport.packing import Packing, packing_of
from superbrain.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MOST_MODELS: Final = 256
_Shapes = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


class _Last(NamedTuple):
    packing: Packing
    what: str
    header: Callable[[str, int, bool], bytes]


class Alike:
    """The last request of each model: of no version, for all outputs, of no priority."""

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}
        self._seen: dict[str, _Shapes] = {}

    def call(self, model: str, inputs: Mapping[str, Any]) -> calls.Call[Result] | None:
        """Give the call for a request like the last of this model; None for any other."""
        last = self._last.get(model)
        if last is None:
            return None
        packing, what, header = last
        tensors = packing.pack(inputs)
        if tensors is None:
            return None
        return calls.Call(
            what, messages.INFER, header, read_result, cast("list[calls.Frame]", tensors), model
        )

    def remember(self, call: calls.Call[Result], inputs: Mapping[str, Any]) -> None:
        """Take note of a request that `calls.infer` has made; the second one alike pays for it."""
        model = call.model
        if not all(type(value) is np.ndarray for value in inputs.values()):
            return
        shapes = tuple((name, one.dtype, one.shape) for name, one in inputs.items())
        if self._seen.get(model) != shapes:
            if len(self._seen) >= _MOST_MODELS:
                self._seen.clear()
                self._last.clear()
            self._seen[model] = shapes
            return
        packing = packing_of(inputs)
        if packing is None:
            return
        header = calls.last_written(call.header)
        self._last[call.model] = _Last(packing, call.what, header)
