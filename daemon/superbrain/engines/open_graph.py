"""What every engine has alike: the graph as it is declared, inputs held to it, and an end.

A runtime's engine adds how its library is called:

    class Engine(OpenGraph[Session]):
        def run(self, inputs):
            misfit, session = self._takes.misfit(inputs), self._runner
            if misfit or session is None:
                raise self._refusal(misfit)
            return session.run(inputs)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from superbrain.domain.tensor_fit import TensorSet
from superbrain.engines.graph_check import InputMismatch
from superbrain.engines.port import ExecutionFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from superbrain.domain.manifest import Graph, GraphTensor
    from superbrain.engines.port import Bound

R = TypeVar("R")


class OpenGraph(Generic[R]):
    """One graph and its runner, the library's part of it, until it is closed."""

    def __init__(
        self, rung: str, runtime: str, graph: Graph, runner: R, metadata: Mapping[str, str]
    ) -> None:
        self.rung = rung
        self.runtime = runtime
        self.inputs: tuple[GraphTensor, ...] = tuple(graph.inputs)
        self.outputs: tuple[GraphTensor, ...] = tuple(graph.outputs)
        self.metadata = metadata
        self._names = [tensor.name for tensor in graph.outputs]
        self._runner: R | None = runner
        self._takes = TensorSet("graph input", graph.inputs, graph.dynamic)

    def _refusal(self, misfit: str) -> ExecutionFailed:
        """Why it does not run: the inputs do not fit, or it is closed."""
        if misfit:
            return InputMismatch(misfit)
        return ExecutionFailed("expected an open engine, found a closed one")

    def bound(self) -> Bound | None:
        """Give memory that is bound to the graph; a library that binds none has none."""
        return None

    def close(self) -> None:
        """Free what the engine holds; it cannot be used afterwards."""
        self._runner = None
