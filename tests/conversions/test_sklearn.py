"""scikit-learn, XGBoost and LightGBM: from a pickle to a daemon that answers as they do."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.conversions.author import Author, make

# What the walk converts is not here once more.
KINDS = (
    "histogram",
    "xgboost-regressor",
    "lightgbm",
    "isolation-forest",
    "one-class-svm",
    "local-outliers",
)
ROWS = ("--trust-pickle", "--samples", "rows.npy", "--dynamic", "batch=1:4:64")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("sklearn", tmp_path_factory.mktemp("sklearn"))


def test_every_line_of_the_walk_from_scikit_learn_does_what_it_says(author: Author) -> None:
    author.walk("from-scikit-learn.md", "sklearn")


@pytest.mark.parametrize("kind", KINDS)
def test_the_daemon_answers_as_the_pickled_model_does(
    author: Author, made: Path, kind: str
) -> None:
    folder = author.converted(f"sk-{kind}", "model.joblib", *ROWS, where=made / kind)
    author.serve(folder)
    author.assert_answers(folder, made / kind)


def test_columns_of_numbers_and_words_become_inputs_of_their_own(
    author: Author, made: Path
) -> None:
    inputs = ("--input", "age=float32[rows,1]", "--input", "town=string[rows,1]")
    folder = author.converted(
        "sk-columns",
        "model.joblib",
        *inputs,
        *("--trust-pickle", "--samples", "samples"),
        where=made / "columns",
    )
    author.serve(folder)
    author.assert_answers(folder, made / "columns")


def test_a_pickle_is_not_loaded_unless_it_is_trusted(author: Author, made: Path) -> None:
    code, said = author.convert("model.joblib", where=made / "pipeline")
    assert (code, said["error"]["code"]) == (1, "PICKLE_NOT_TRUSTED")


def test_a_graph_that_its_author_exported_rightly_is_taken(author: Author, made: Path) -> None:
    inputs = ("--input", "features=float32[batch,13]")
    folder = author.converted(
        "sk-right",
        "right.onnx",
        *("--against", "model.joblib", *inputs, *ROWS),
        where=made / "pipeline",
    )
    author.serve(folder)
    author.assert_answers(folder, made / "pipeline")


def test_a_graph_with_another_normalisation_is_refused_and_nothing_is_written(
    author: Author, made: Path
) -> None:
    target = author.folder / "sk-wrong"
    words = ("--against", "model.joblib", *ROWS[:3], "--output", str(target))
    code, said = author.convert("wrong.onnx", *words, where=made / "pipeline")
    assert (code, said["error"]["code"], target.exists()) == (4, "PARITY", False)
    assert said["error"]["mend"]
    assert max(one["share"] for one in said["figures"] if not one["agrees"]) > 1e-3


def test_a_wrong_graph_that_is_forced_into_the_bundle_is_rejected_by_the_host(
    author: Author, made: Path
) -> None:
    folder = author.converted("sk-forced", "model.joblib", *ROWS, where=made / "pipeline")
    change_normalisation(folder / "graphs/model.onnx")
    author.drop(folder)
    author.appliance.wait_ended("sk-forced", "0.1.0", "REJECTED")


def change_normalisation(path: Path) -> None:
    """Scale the features by other numbers than the model was trained with."""
    graph = onnx.load(path)
    scaler = next(one for one in graph.graph.initializer if 13 in one.dims)
    scaler.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scaler) * 1.1, scaler.name))
    onnx.save(graph, path)


def test_a_second_conversion_leaves_what_is_there_alone(author: Author, made: Path) -> None:
    target = author.folder / "mine"
    target.mkdir()
    (target / "bundle.toml").write_text("mine")
    code, said = author.convert(
        "model.joblib", *ROWS, "--output", str(target), where=made / "pipeline"
    )
    assert (code, said["error"]["code"]) == (1, "RECIPE_EXISTS")
    assert (target / "bundle.toml").read_text() == "mine"
