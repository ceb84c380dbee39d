"""TensorFlow and Keras in every form: from a saved model to a daemon that answers as it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conversions.author import Author, make

IMAGE = (
    *("--input", "image=float32[batch,height,width,3]", "--values", "image=0:1"),
    *("--dynamic", "batch=1:3:16", "--dynamic", "height=8:24:48", "--dynamic", "width=8:24:48"),
)
NAMES = ("--outputs", "embedding,scores")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("tensorflow", tmp_path_factory.mktemp("tensorflow"))


def test_every_line_of_the_walk_from_keras_does_what_it_says(author: Author) -> None:
    said = author.walk("from-tensorflow.md", "tensorflow")
    assert "kept     onnxruntime:cpu-int8" in said


def test_the_daemon_answers_as_the_frozen_graph_does(author: Author, made: Path) -> None:
    folder = author.converted("tf-frozen", "frozen.pb", *IMAGE, *NAMES, where=made)
    author.serve(folder)
    author.assert_answers(folder, made)


def test_a_saved_model_is_served_and_its_graph_is_that_of_the_h5_file_too(
    author: Author, made: Path
) -> None:
    folder = author.converted("tf-saved-model", "saved", *IMAGE, *NAMES, where=made)
    author.serve(folder)
    author.assert_answers(folder, made)
    graph = str(folder / "graphs/model.onnx")
    again = author.converted("tf-h5", graph, "--against", "net.h5", *IMAGE, where=made)
    assert (again / "graphs/model.onnx").exists()
