"""Tabular: which rows are refused, and that every row gets the name of its class."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from tests.support.bundle_code import Untyped
from tests.unit.bundles_samples.recipes import BUNDLES, FakeBundle, load

pipeline = load("tabular/code/pipeline.py")


@pytest.fixture
def sample() -> Untyped:
    return pipeline.Pipeline(FakeBundle("tabular"))


def test_good_rows_go_to_the_graph_as_they_are(sample: Untyped) -> None:
    rows = np.ones((3, 13), np.float32)
    assert sample.preprocess({"features": rows})["features"] is rows


def test_a_missing_value_is_refused_with_its_row_and_column(sample: Untyped) -> None:
    rows = np.ones((3, 13), np.float32)
    rows[1, 4] = np.nan
    with pytest.raises(ValueError, match="expected numbers, found nan in row 1, column magnesium"):
        sample.preprocess({"features": rows})


@pytest.mark.parametrize("count", [0, 4097])
def test_a_number_of_rows_the_graph_does_not_allow_is_refused(sample: Untyped, count: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to 4096 rows, found {count}"):
        sample.preprocess({"features": np.ones((count, 13), np.float32)})


def test_every_label_gets_its_name(sample: Untyped) -> None:
    outputs = {"label": np.array([2, 0]), "probabilities": np.eye(3, dtype=np.float32)[[2, 0]]}
    assert sample.postprocess(outputs, {})["name"] == ["class_2", "class_0"]


def test_names_agree_with_the_recipe(sample: Untyped) -> None:
    recipe = tomllib.loads((BUNDLES / "tabular/bundle.toml").read_text())
    graph = recipe["graphs"]["wine"]
    assert graph["inputs"][0]["shape"] == ["rows", len(sample.columns)]
    assert graph["outputs"][1]["shape"] == ["rows", len(sample.classes)]
