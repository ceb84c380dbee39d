"""The pipeline contract as types: what bundle code is given, and what it must offer.

For authors' editors and type checkers. Bundle code needs nothing of superbrain at run time:

    from __future__ import annotations
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        from superbrain.domain.contract import Bundle, Graphs, Request, Response

    class Pipeline:
        def __init__(self, bundle: Bundle) -> None: ...
        def run(self, request: Request, graphs: Graphs) -> Response: ...

A pipeline is either a `StepsPipeline` or a `RunPipeline`. docs/bundle-format.md tells the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from superbrain.domain.manifest import GraphTensor, Range

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
# Of every input of the interface `bytes` where it is BYTES with shape [], else its array.
Request = dict[str, Any]
# For every output of the interface an array of its datatype, numbers, lists, `str` or `bytes`.
Response = dict[str, Any]


class GraphFacts(Protocol):
    """What a pipeline may know of a graph."""

    @property
    def name(self) -> str:
        """Its name in the manifest."""

    @property
    def inputs(self) -> Sequence[GraphTensor]:
        """Its inputs as the manifest declares them: `name`, `datatype`, `shape`."""

    @property
    def outputs(self) -> Sequence[GraphTensor]:
        """Its outputs, likewise."""

    @property
    def dynamic(self) -> Mapping[str, Range]:
        """Bounds of its dynamic sizes by name: `min`, `opt`, `max`."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the ONNX file says of itself (`metadata_props`)."""


class Bundle(Protocol):
    """The `bundle` that a pipeline is constructed with."""

    def asset(self, name: str) -> bytes:
        """Give the bytes of `assets/NAME`."""

    def text(self, name: str) -> str:
        """Give `assets/NAME` as text, which is UTF-8."""

    def graph(self, name: str) -> GraphFacts:
        """Give the facts of one graph."""


class Graph(Protocol):
    """One of the `graphs` that `run` gets."""

    def __call__(self, inputs: Mapping[str, Array], /) -> Arrays:
        """Run the graph once: an array for every input, of its datatype and within its bounds."""


Graphs = Mapping[str, Graph]


class StepsPipeline(Protocol):
    """A pipeline around the bundle's only graph."""

    def preprocess(self, request: Request, /) -> Arrays:
        """Give the graph's inputs; a ValueError raised here refuses the request."""

    def postprocess(self, outputs: Arrays, request: Request, /) -> Response:
        """Give the response."""


class RunPipeline(Protocol):
    """A pipeline that calls graphs as often as it likes."""

    def run(self, request: Request, graphs: Graphs, /) -> Response:
        """Give the response; a ValueError raised here refuses the request."""
