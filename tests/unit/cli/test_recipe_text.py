"""The first bundle.toml: names, guesses and quoting for whatever a graph file may hold."""

from __future__ import annotations

import datetime as dt
import tomllib

import msgspec
import pytest

from superbrain.bundle.folder import Recipe
from superbrain.cli.recipe_text import (
    likely_ranges,
    named_tensors,
    pipeline_text,
    plain_name,
    recipe_text,
)
from superbrain.domain.graph_rules import NAME
from superbrain.domain.manifest import Exact, Range
from superbrain.engines.graph_check import FileTensor
from tests.support.graphs import tensor


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet50", "resnet50"),
        ("My Model (v2)", "my-model-v2"),
        ("__x__", "x"),
        ("größe", "gr-e"),
        ("...", "model"),
        ("x" * 99, "x" * 64),
    ],
)
def test_a_name_is_made_of_the_files_name(file: str, name: str) -> None:
    assert plain_name(file) == name
    assert NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (3, 3),
        (0, 0),
        (-1, "x_0"),
        (None, "x_0"),
        ("batch", "batch"),
        ("", "x_0"),
        ("größe", "x_0"),
        ("?", "x_0"),  # Paddle's exporter writes this for every size it does not know
        ("None", "x_0"),
    ],
)
def test_open_sizes_get_a_name(found: int | str | None, named: int | str) -> None:
    (made,) = named_tensors([FileTensor("x", "FP32", (found,))])
    assert made.shape == [named]


def test_a_name_made_of_an_awkward_tensor_is_plain() -> None:
    (made,) = named_tensors([FileTensor("save_model/scale_0.tmp_1:0", "FP32", (None, 2))])
    assert made.shape == ["save_model_scale_0_tmp_1_0_0", 2]


def test_bounds_are_guessed_by_where_a_size_stands() -> None:
    inputs = [tensor("image", "FP32", "N", 3, "height")]
    outputs = [tensor("boxes", "FP32", "N", "count")]
    assert likely_ranges(inputs, outputs) == {
        "N": Range(1, 1, 8),
        "height": Range(1, 128, 4096),
        "count": Range(0, 1, 65_536),
    }


def test_awkward_names_survive_toml() -> None:
    odd = 'in.0 "x" \\ [y]'
    text = recipe_text(
        name="odd",
        created=dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
        graph="a.b",
        path="graphs/a.b.onnx",
        inputs=[tensor(odd, "INT64", odd)],
        outputs=[tensor(odd, "INT64", odd)],
    )
    recipe = msgspec.convert(tomllib.loads(text), Recipe)
    assert recipe.graphs["a.b"].inputs == [tensor(odd, "INT64", odd)]
    assert recipe.golden.tolerances == {odd: Exact()}


def test_the_pipeline_gives_a_blob_back_to_the_graph_as_an_array() -> None:
    text = pipeline_text([tensor("t", "BYTES")], [tensor("y", "FP32", 1)])
    assert '"t": np.array(request["t"], dtype=object),' in text
    compile(text, "pipeline.py", "exec")


def test_the_pipeline_imports_nothing_it_does_not_use() -> None:
    text = pipeline_text([tensor("x", "FP32", 1)], [tensor("y", "FP32", 1)])
    assert "import numpy" not in text
