"""Loads the code of the sample bundles by its path, as a worker does: siblings by plain name.

Every load gives fresh modules and leaves none behind, so that two bundles may both have a pipeline.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from superbrain.bundle.folder import read_recipe
from superbrain.domain.manifest import Range

Untyped = Any  # what comes out of bundle code, which has no types for the checker
BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/bundle.toml"))


def load(path: str) -> ModuleType:
    """Import one file below bundles/, such as "ocr/code/detect.py"."""
    file = BUNDLES / path
    before = set(sys.modules)
    sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(file.stem)
    finally:
        sys.path.remove(str(file.parent))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin is not None and Path(origin).is_relative_to(file.parent):
                del sys.modules[name]


class FakeGraph:
    """What a pipeline may see of a graph: its bounds and its metadata."""

    def __init__(self, dynamic: dict[str, Range], metadata: dict[str, str]) -> None:
        self.dynamic = dynamic
        self.metadata = metadata


class FakeBundle:
    """The `bundle` of a pipeline: assets and bounds of the real recipe, made-up metadata."""

    def __init__(self, name: str, metadata: dict[str, dict[str, str]] | None = None) -> None:
        self.assets = BUNDLES / name / "assets"
        self.graphs = {
            graph: FakeGraph(declared.dynamic, (metadata or {}).get(graph, {}))
            for graph, declared in read_recipe(BUNDLES / name).graphs.items()
        }

    def asset(self, name: str) -> bytes:
        return (self.assets / name).read_bytes()

    def text(self, name: str) -> str:
        return self.asset(name).decode()

    def graph(self, name: str) -> FakeGraph:
        return self.graphs[name]
