"""Embedding, audio and tables: fixed batches, windows with context, missing values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.domain.manifest import Range
from tests.support.bundle_code import TEMPLATES, Untyped, load_module, load_template
from tests.support.graphs import tensor
from tests.unit.bundles_samples.recipes import load
from tests.unit.templates.fakes import FakeBundle, graph_of

Array = np.ndarray[Any, np.dtype[Any]]
vectors: Untyped = load_module(TEMPLATES / "shared/vectors.py")


# --- vectors ------------------------------------------------------------------------------------


def test_the_mean_is_of_the_positions_that_count() -> None:
    output = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    assert vectors.pooled(output, "mean", mask).tolist() == [[1, 2], [6, 7]]
    assert vectors.pooled(output, "mean").tolist() == [[2, 3], [8, 9]]
    assert vectors.pooled(output, "first").tolist() == [[0, 1], [6, 7]]
    assert vectors.pooled(output[:, 0, :, None, None], "none").shape == (2, 2)


def test_vectors_have_length_one_and_zeros_stay() -> None:
    assert vectors.unit(np.array([[3, 4], [0, 0]], np.float32)).tolist() == [
        pytest.approx([0.6, 0.8]),
        [0, 0],
    ]


def test_a_graph_of_fixed_sizes_gets_them_filled_up_with_tokens_that_do_not_count(
    tmp_path: Path,
) -> None:
    names = {"SEGMENTS": "types", "POSITIONS": "places", "PADDING": 9}
    code = load_template(tmp_path, "embedding/pipeline_tokens.py", **names)
    graph = graph_of([tensor("input_ids", "INT32", 2, 4)], [])
    seen: list[dict[str, Array]] = []

    def run(inputs: dict[str, Array]) -> dict[str, Array]:
        seen.append(inputs)
        return {"last_hidden_state": np.repeat(inputs["input_ids"][:, :, None], 2, 2).astype("f4")}

    tokens = np.array([[1, 3, 1], [2, 2, 2], [5, 5, 5]])
    request = {"tokens": tokens, "mask": np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0]])}
    answer = code.Pipeline(FakeBundle(graph)).run(request, {"model": run})
    assert answer["embedding"] == pytest.approx(np.full((3, 2), 0.5**0.5))
    assert seen[1]["input_ids"].tolist() == [[5, 5, 5, 9], [9, 9, 9, 9]]
    assert seen[1]["attention_mask"].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert seen[1]["types"].tolist() == [[0] * 4] * 2
    assert seen[1]["places"].tolist() == [[0, 1, 2, 3]] * 2
    assert {str(array.dtype) for array in seen[1].values()} == {"int32"}


@pytest.mark.parametrize(
    ("tokens", "mask", "words"),
    [
        (np.ones((1, 5)), np.ones((1, 5)), r"1 to 4 tokens, found \[1, 5\]"),
        (np.ones((0, 4)), np.ones((0, 4)), r"at least one text .* found \[0, 4\]"),
        (np.array([[3, -1]]), np.ones((1, 2)), "ids of 0 or more, found -1 to 3"),
        (np.ones((1, 2)), np.array([[2, 1]]), "expected 1 for tokens that count"),
        (np.ones((1, 2)), np.array([[0, 0]]), "at least one a text"),
    ],
)
def test_texts_that_the_graph_cannot_take_are_refused(
    tmp_path: Path, tokens: Array, mask: Array, words: str
) -> None:
    code = load_template(tmp_path, "embedding/pipeline_tokens.py")
    with pytest.raises(ValueError, match=words):
        code.checked(tokens, mask, Range(1, 4, 4))


# --- audio --------------------------------------------------------------------------------------

VAD = {
    "SHAPE": (576,),
    "STATES": {"stateN": "state"},
    "STATE_SHAPES": {"state": (2, 1, 128)},
    "SCALARS": {"sr": 16000},
    "WINDOW": 576,
    "HOP": 512,
}


def test_windows_with_context_are_those_of_the_voice_activity_sample(tmp_path: Path) -> None:
    sample = load("voice-activity/code/pipeline.py")
    code = load_template(tmp_path, "audio/pipeline.py", **VAD)
    context, sound = np.arange(-64, 0, dtype=np.float32), np.arange(1300, dtype=np.float32)
    assert np.array_equal(code.windows(context, sound), sample.windows(sound, context))


def test_a_recurrent_graph_gets_its_state_back_one_window_at_a_time(tmp_path: Path) -> None:
    code = load_template(tmp_path, "audio/pipeline.py", **VAD)
    state = tensor("state", "FP32", 2, "N", 128)
    inputs = [tensor("input", "FP32", "N", "S"), state, tensor("sr", "INT64")]
    pipeline = code.Pipeline(FakeBundle(graph_of(inputs, [], N=(1, 1, 1), S=(576, 576, 576))))

    def run(given: dict[str, Array]) -> dict[str, Array]:
        assert given["input"].shape == (1, 576)
        assert (given["sr"].item(), str(given["sr"].dtype)) == (16000, "int64")
        return {"output": given["state"][0, :, :1], "stateN": given["state"] + 1}

    request = {"audio": np.zeros(1500, np.float32), "state": np.zeros(64 + 256, np.float32)}
    answer = pipeline.run(request, {"model": run})
    assert answer["output"].tolist() == [[0], [1], [2]]
    assert answer["state"].shape == (320,)
    assert answer["state"][64:].tolist() == [3] * 256
    assert answer["state"].dtype == np.float32
    with pytest.raises(ValueError, match="state: expected 320 numbers, found 7"):
        pipeline.run({"audio": request["audio"], "state": np.zeros(7, np.float32)}, {"model": run})


def test_windows_without_a_state_share_a_run_as_far_as_the_batch_goes(tmp_path: Path) -> None:
    code = load_template(tmp_path, "audio/pipeline.py", WINDOW=10, HOP=10, SHAPE=(1, 10))
    graph = graph_of([tensor("input", "FP32", "N", 1, 10)], [], N=(2, 2, 4))
    sizes: list[int] = []

    def run(given: dict[str, Array]) -> dict[str, Array]:
        sizes.append(len(given["input"]))
        return {"output": given["input"].max(axis=2)}

    sound = (np.arange(85) / 100).astype(np.float32)
    answer = code.Pipeline(FakeBundle(graph)).run({"audio": sound}, {"model": run})
    assert sizes == [4, 4, 2]  # the ninth window with one of silence, for two are the least
    ends = [*range(9, 85, 10), 84]
    assert answer["output"][:, 0].tolist() == pytest.approx([end / 100 for end in ends])


def test_samples_of_16_bits_are_scaled(tmp_path: Path) -> None:
    code = load_template(tmp_path, "audio/pipeline.py")
    assert code.floating(np.array([-32768, 16384], np.int16)).tolist() == [-1, 0.5]


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros(0, np.float32), "expected 1 sample to 600 seconds at 16000 Hz, found 0"),
        (np.zeros(600 * 16000 + 1, np.float32), "found 9600001 samples"),
        (np.array([0, 1000], np.float32), "between -1 and 1, found 1000"),
        (np.array([0, np.nan], np.float32), "between -1 and 1, found nan"),
    ],
)
def test_what_is_no_sound_is_refused(tmp_path: Path, audio: Array, words: str) -> None:
    code = load_template(tmp_path, "audio/pipeline.py")
    with pytest.raises(ValueError, match=words):
        code.floating(audio)


# --- tables -------------------------------------------------------------------------------------


def table_answer(folder: Path, features: Array, **constants: object) -> list[list[float]]:
    """What reaches a graph that takes exactly two rows of columns a and b."""
    code = load_template(
        folder, "tabular/pipeline.py", OUTPUTS={"value": "y"}, LABELS="", **constants
    )
    graph = graph_of([tensor("features", "FP32", 2, 2)], [])
    pipeline = code.Pipeline(FakeBundle(graph, {"columns.txt": "a\nb\n"}))

    def run(given: dict[str, Array]) -> dict[str, Array]:
        assert (given["features"].shape, str(given["features"].dtype)) == ((2, 2), "float32")
        return {"y": given["features"] @ np.array([1, 100], np.float32)}

    request = {"columns": np.array([b"b", b"a"], object), "features": features}
    answer: list[list[float]] = pipeline.run(request, {"model": run})["value"].tolist()
    return answer


def test_rows_go_through_a_graph_of_fixed_rows_in_the_order_of_the_training(tmp_path: Path) -> None:
    features = np.array([[1, 5], [2, 6], [3, 7.0]])
    assert table_answer(tmp_path, features) == [[105], [206], [307]]


def test_a_missing_value_becomes_what_stands_for_it(tmp_path: Path) -> None:
    features = np.array([[1, np.nan]])
    assert table_answer(tmp_path, features, INSTEAD={"a": 41.0}) == [[141]]


def test_a_missing_value_is_passed_on_where_the_graph_knows_what_to_do(tmp_path: Path) -> None:
    (row,) = table_answer(tmp_path, np.array([[1, np.nan]]), MISSING="pass")
    assert np.isnan(row[0])
    with pytest.raises(ValueError, match="found inf in row 0, column b"):
        table_answer(tmp_path, np.array([[np.inf, 1]]), MISSING="pass")


@pytest.mark.parametrize("shape", [(0, 2), (1, 3)])
def test_features_that_do_not_fit_the_columns_are_refused(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="expected at least one row of 2 columns"):
        table_answer(tmp_path, np.zeros(shape))


def test_columns_that_are_inputs_of_their_own_go_as_they_are(tmp_path: Path) -> None:
    code = load_template(tmp_path, "tabular/pipeline_columns.py")
    graph = graph_of(
        [tensor("age", "FP32", "rows", 1), tensor("city", "BYTES", "rows", 1)], [], rows=(1, 2, 2)
    )
    pipeline = code.Pipeline(FakeBundle(graph, {"labels.txt": "no\nyes\n"}))

    def run(given: dict[str, Array]) -> dict[str, Array]:
        old = (given["age"][:, 0] > 30) & (given["city"][:, 0] == b"Ulm")
        return {"label": old.astype(np.int64), "probabilities": np.stack([~old, old], 1) * 1.0}

    cities = np.array([b"Ulm", b"Ulm", b"Bern"], object)
    request = {"age": np.array([31, 5, 40], np.float32), "city": cities}
    answer = pipeline.run(request, {"model": run})
    assert answer["label"] == ["yes", "no", "no"]
    assert answer["probabilities"].tolist() == [[0, 1], [1, 0], [1, 0]]
    with pytest.raises(ValueError, match=r"as many rows in every column.*found age 2, city 3"):
        pipeline.run({"age": request["age"][:2], "city": cities}, {"model": run})
    with pytest.raises(ValueError, match="age: expected numbers, found nan in row 1"):
        pipeline.run({"age": np.array([1, np.nan], "f4"), "city": cities[:2]}, {"model": run})


def test_a_label_that_is_text_already_stays(tmp_path: Path) -> None:
    rows = load_template(tmp_path, "tabular/rows.py")
    outputs = {"label": np.array([b"x"], object), "probabilities": np.array([[0.1, 0.9]])}
    assert rows.answer(outputs, ["a", "b"])["label"] == [b"x"]
    del outputs["label"]
    assert rows.answer(outputs, ["a", "b"])["label"] == ["b"]
