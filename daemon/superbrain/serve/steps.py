"""The steps around a bundle's only graph: what comes before its run, the run, what comes after.

Each step can be taken by itself, so that several requests can share the run in the middle.
`GraphSteps` serves the graph's tensors as they are; `PipelineSteps` calls the bundle's own
preprocess and postprocess.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from superbrain.domain.manifest import Interface
from superbrain.engines.graph_check import InputMismatch
from superbrain.engines.port import EngineError
from superbrain.serve import bundle_code
from superbrain.serve.conversion import RequestConversion, ResponseConversion
from superbrain.wire.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from superbrain.engines.port import Bound, Engine

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]


class Prepared(NamedTuple):
    """A request on its way into the graph: its inputs, and what the step after the run wants."""

    inputs: Arrays
    values: Any


class GraphSteps:
    """A graph without code: request tensors are its inputs, its outputs the response."""

    def __init__(self, engine: Engine, interface: Interface) -> None:
        self._engine = engine
        self._to_response = ResponseConversion(interface.outputs)
        self._response = [tensor.name for tensor in interface.outputs]

    def answer(self, request: Arrays) -> Arrays:
        """Take all steps for one request that fits the interface.

        Raises:
            RequestError: as the steps.
        """
        return self._to_response.select(self.run(request))

    def bound(self) -> Bound | None:
        """Give memory that is bound to the graph, where its run is all there is to an answer."""
        bound = self._engine.bound()
        if bound is None or any(name not in bound.outputs for name in self._response):
            return None
        return bound

    def prepare(self, request: Arrays) -> Prepared:
        """Make graph inputs of a request.

        Raises:
            InvalidArgument: the pipeline refuses it.
            Internal: the bundle's code failed.
        """
        return Prepared(request, None)

    def run(self, inputs: Arrays) -> Arrays:
        """Run the graph.

        Raises:
            InvalidArgument: the inputs do not fit it.
            Internal: the run failed.
        """
        try:
            return self._engine.run(inputs)
        except InputMismatch as error:
            raise InvalidArgument(error.message, mend=error.mend) from error
        except EngineError as error:
            raise Internal(error.message, mend=error.mend) from error

    def finish(self, outputs: Arrays, _prepared: Prepared) -> Arrays:
        """Make the response of the graph's outputs.

        Raises:
            Internal: it is not what the interface says, or the bundle's code failed.
        """
        return self._to_response.select(outputs)


class PipelineSteps(GraphSteps):
    """A graph between the bundle's own preprocess and postprocess."""

    def __init__(self, engine: Engine, interface: Interface, name: str, pipeline: Any) -> None:  # noqa: ANN401
        super().__init__(engine, interface)
        self._name = name
        self._to_values = RequestConversion(interface.inputs)
        self._preprocess: Callable[..., Any] = pipeline.preprocess
        self._postprocess: Callable[..., Any] = pipeline.postprocess

    def bound(self) -> Bound | None:
        """Give none: there is more to an answer than the run."""
        return None

    def answer(self, request: Arrays) -> Arrays:
        """Take all steps for one request that fits the interface."""
        prepared = self.prepare(request)
        return self.finish(self.run(prepared.inputs), prepared)

    def prepare(self, request: Arrays) -> Prepared:
        """Let the bundle preprocess a request."""
        values = self._to_values(request)
        inputs = bundle_code.call(self._preprocess, values, refuses=True)
        if not isinstance(inputs, dict):
            raise Internal(
                f"expected preprocess to return a dict of graph inputs, "
                f"found {type(inputs).__name__}"
            )
        return Prepared(inputs, values)

    def run(self, inputs: Arrays) -> Arrays:
        """Run the graph; what does not fit it is the pipeline's own failure."""
        try:
            return self._engine.run(inputs)
        except EngineError as error:
            raise Internal(f"graph {self._name!r} after preprocess: {error}") from error

    def finish(self, outputs: Arrays, prepared: Prepared) -> Arrays:
        """Let the bundle postprocess the graph's outputs."""
        return self._to_response(bundle_code.call(self._postprocess, outputs, prepared.values))
