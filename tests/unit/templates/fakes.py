"""The `bundle` that a template's pipeline is constructed with: declared graphs, assets as text."""

from __future__ import annotations

from collections.abc import Mapping

from superbrain.domain.manifest import Graph, GraphTensor, Range


def graph_of(
    inputs: list[GraphTensor], outputs: list[GraphTensor], **dynamic: tuple[int, int, int]
) -> Graph:
    """A graph as a manifest declares it."""
    ranges = {name: Range(*bounds) for name, bounds in dynamic.items()}
    return Graph("graphs/model.onnx", inputs, outputs, ranges)


class FakeBundle:
    """One graph of any name, and assets."""

    def __init__(self, graph: Graph, assets: Mapping[str, str] | None = None) -> None:
        self._graph = graph
        self._assets = assets or {}

    def graph(self, name: str) -> Graph:
        return self._graph

    def text(self, name: str) -> str:
        return self._assets[name]
