"""The code of the sample bundles, loaded by its path, and the `bundle` that it is given."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from superbrain.bundle.folder import read_recipe
from superbrain.domain.manifest import Graph, GraphTensor, Range
from tests.support.bundle_code import load_module

BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/bundle.toml"))


def load(path: str) -> ModuleType:
    """Import one file below bundles/, such as "ocr/code/detect.py"."""
    return load_module(BUNDLES / path)


class FakeGraph:
    """What a pipeline may see of a graph: its tensors, its bounds and its metadata."""

    def __init__(self, declared: Graph, metadata: dict[str, str]) -> None:
        self.inputs: list[GraphTensor] = declared.inputs
        self.outputs: list[GraphTensor] = declared.outputs
        self.dynamic: dict[str, Range] = declared.dynamic
        self.metadata = metadata


class FakeBundle:
    """The `bundle` of a pipeline: assets and bounds of the real recipe, made-up metadata."""

    def __init__(self, name: str, metadata: dict[str, dict[str, str]] | None = None) -> None:
        self.assets = BUNDLES / name / "assets"
        self.graphs = {
            graph: FakeGraph(declared, (metadata or {}).get(graph, {}))
            for graph, declared in read_recipe(BUNDLES / name).graphs.items()
        }

    def asset(self, name: str) -> bytes:
        return (self.assets / name).read_bytes()

    def text(self, name: str) -> str:
        return self.asset(name).decode()

    def graph(self, name: str) -> FakeGraph:
        return self.graphs[name]
