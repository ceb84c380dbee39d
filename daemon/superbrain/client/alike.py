"""Requests like the last one of the same model: written in one step instead of one for each tensor.

A program asks for the same names, datatypes and shapes over and over. Whatever differs in anything
else than the values goes the long way by `calls.infer`, which is also the one that finds faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from superbrain.client import calls
from superbrain.client.result import ResponseForm, Result, read_result, response_form
from superbrain.transport.packing import Packing, packing_of
from superbrain.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from superbrain.client.region import Region

_MOST_MODELS: Final = 256
_MOST_ANSWERS: Final = 16
_Shapes = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


class Last(NamedTuple):
    """What requests like the last one of a model have in common.

    Attributes:
        packing: of their inputs.
        what: is asked, as in `calls.Call`; so is `header`.
        header: writes it.
        model: the model's name.
        answers: what is known of their answers, by header: their packing, and their form.
    """

    packing: Packing
    what: str
    header: Callable[[str, int, bool], bytes]
    model: str
    answers: dict[bytes, tuple[Packing, ResponseForm]]

    def call(self, inputs: Mapping[str, Any]) -> calls.Call[Result] | None:
        """Give the call for these inputs; None when they are not alike."""
        tensors = self.packing.pack(inputs)
        return None if tensors is None else self.call_on(tensors)

    def call_on(self, tensors: list[memoryview]) -> calls.Call[Result]:
        """Give the call for inputs that are packed."""
        frames = cast("list[calls.Frame]", tensors)
        return calls.Call(self.what, messages.INFER, self.header, read_result, frames, self.model)

    @property
    def regions(self) -> Sequence[Region]:
        """The shared memory that it is in: none."""
        return ()

    @property
    def tensors(self) -> list[memoryview] | None:
        """The inputs, if they are the same each time: they are not."""
        return None

    def learn(self, header: bytes) -> None:
        """Take note of the header of an answer; what comes again and again is known then."""
        form = response_form(header)
        if form.packing is not None and not any(form.places):
            if len(self.answers) >= _MOST_ANSWERS:
                self.answers.clear()
            self.answers[header] = form.packing, form


class LastShared:
    """As `Last`, of requests on the same shared memory: what changes is in the memory alone.

    Attributes:
        regions: that memory.
        answers: as of `Last`, and where the outputs are, if they are all in shared memory.
    """

    packing = None

    def __init__(
        self, call: calls.Call[Result], view: Callable[[messages.SharedMemory], memoryview]
    ) -> None:
        assert call.shared is not None  # noqa: S101 - whose caller has made it so
        self.model = call.model
        self.regions = call.shared.regions
        self.tensors: list[memoryview] = []  # all are in the memory
        self.answers: dict[bytes, tuple[Packing, ResponseForm, list[memoryview]]] = {}
        self._call = call
        self._header = call.shared.header
        self._view = view

    def header(self, name: str, _timeout_ms: int, _suspect: bool) -> bytes:  # noqa: FBT001
        """Write it."""
        return self._header(name)

    def call_on(self, _tensors: list[memoryview]) -> calls.Call[Result]:
        """Give the call, which is the same each time."""
        return self._call

    def learn(self, header: bytes) -> None:
        """Take note of the header of an answer; what comes again and again is known then."""
        form = response_form(header)
        places = [place for place in form.places if place is not None]
        if form.packing is not None and len(places) == len(form.places):
            if len(self.answers) >= _MOST_ANSWERS:
                self.answers.clear()
            self.answers[header] = form.packing, form, [self._view(place) for place in places]


class Alike:
    """The last request of each model: of no version, for all outputs, of no priority."""

    def __init__(self) -> None:
        self._last: dict[str, Last] = {}
        self._seen: dict[str, _Shapes] = {}

    def last(self, model: str) -> Last | None:
        """Give what the last requests of this model have in common, if there were two alike."""
        return self._last.get(model)

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
        self._last[model] = Last(packing, call.what, header, model, {})
