"""The recipes themselves: readable by the builder, complete, and fetched from pinned files."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from superbrain.bundle.folder import read_recipe
from tests.unit.bundles_samples.recipes import BUNDLES, NAMES

WEIGHTS: dict[str, Any] = tomllib.loads((BUNDLES / "weights.toml").read_text())
MADE_HERE = {"tabular/graphs/model.onnx"}


def test_there_are_four_samples() -> None:
    assert NAMES == ["ocr", "orientation", "tabular", "voice-activity"]


@pytest.mark.parametrize("name", NAMES)
def test_the_builder_reads_the_recipe(name: str) -> None:
    recipe = read_recipe(BUNDLES / name)
    assert recipe.name == name


@pytest.mark.parametrize("name", NAMES)
def test_every_response_tensor_has_a_tolerance(name: str) -> None:
    recipe = read_recipe(BUNDLES / name)
    assert recipe.golden.tolerances.keys() == {tensor.name for tensor in recipe.interface.outputs}


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_is_described_to_callers(name: str) -> None:
    interface = read_recipe(BUNDLES / name).interface
    assert all(tensor.description for tensor in (*interface.inputs, *interface.outputs))


@pytest.mark.parametrize("name", NAMES)
def test_every_graph_is_fetched_or_made(name: str) -> None:
    fetched = {f"{entry['bundle']}/{entry['target']}" for entry in WEIGHTS["files"]}
    graphs = {f"{name}/{graph.path}" for graph in read_recipe(BUNDLES / name).graphs.values()}
    assert graphs <= fetched | MADE_HERE


def test_every_fetched_file_is_pinned_and_licensed() -> None:
    for entry in (*WEIGHTS["files"], *WEIGHTS["distributions"].values()):
        assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    for entry in WEIGHTS["files"]:
        assert entry["distribution"] in WEIGHTS["distributions"]
        assert entry["licence"]


def test_no_file_is_fetched_twice_to_the_same_place() -> None:
    targets = [(entry["bundle"], entry["target"]) for entry in WEIGHTS["files"]]
    assert len(set(targets)) == len(targets)
