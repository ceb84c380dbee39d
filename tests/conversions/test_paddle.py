"""Paddle: from an inference folder to a daemon that answers as it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conversions.author import Author, make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("paddle", tmp_path_factory.mktemp("paddle"))


def test_the_daemon_answers_as_the_paddle_model_does(author: Author, made: Path) -> None:
    folder = author.converted(
        "paddle-net",
        "net",
        *("--input", "image=float32[batch,3,height,24]", "--values", "image=0:1"),
        *("--dynamic", "batch=1:3:16", "--dynamic", "height=8:24:48"),
        *("--outputs", "scores,pooled"),
        where=made,
    )
    author.serve(folder)
    author.assert_answers(folder, made)


def test_every_line_of_the_walk_from_paddle_does_what_it_says(author: Author) -> None:
    author.walk("from-paddle.md", "paddle")
