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
FORMS = {
    "keras": ("net.keras", *IMAGE),
    "h5": ("net.h5", *IMAGE),
    "saved-model": ("saved", *IMAGE, *NAMES),
    "frozen": ("frozen.pb", *IMAGE, *NAMES),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("tensorflow", tmp_path_factory.mktemp("tensorflow"))


@pytest.mark.parametrize("form", FORMS)
def test_the_daemon_answers_as_the_tensorflow_model_does(
    author: Author, made: Path, form: str
) -> None:
    folder = author.converted(f"tf-{form}", *FORMS[form], where=made)
    author.serve(folder)
    author.assert_answers(folder, made)
