"""What original and graph are asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from superbrain.convert.arrays import Array
from superbrain.convert.errors import InputsUnclear
from superbrain.convert.samples import (
    Samples,
    from_author,
    generate,
    read_samples,
    size_plans,
    steps,
)
from superbrain.domain.manifest import GraphTensor, Range

ROWS = [GraphTensor("x", "FP32", ["batch", 3])]
BATCH = {"batch": Range(1, 4, 16)}
PICTURE = [GraphTensor("x", "FP32", ["batch", "height"]), GraphTensor("y", "INT64", ["batch"])]
BOTH = {"batch": Range(1, 2, 4), "height": Range(8, 16, 32)}


def sizes(samples: Samples) -> set[tuple[int, ...]]:
    return {tuple(one.sizes.values()) for one in samples.choosing}


def test_every_dynamic_size_is_asked_at_three_or_more_sizes_with_its_ends() -> None:
    for name, bounds in BOTH.items():
        asked = {plan[name] for plan in size_plans(BOTH)}
        assert {bounds.min, bounds.opt, bounds.max} <= asked


def test_a_range_whose_typical_size_is_an_end_is_still_asked_in_between() -> None:
    assert len(steps(Range(1, 1, 16))) >= 3


def test_a_range_of_one_size_is_asked_at_that() -> None:
    assert steps(Range(4, 4, 4)) == [4]


def test_all_sizes_are_asked_smallest_and_largest_together() -> None:
    plans = size_plans(BOTH)
    assert {"batch": 1, "height": 8} in plans
    assert {"batch": 4, "height": 32} in plans


def test_generated_samples_are_the_same_for_the_same_seed() -> None:
    first, again = (generate(ROWS, BATCH, {}, seed=3) for _ in range(2))
    other = generate(ROWS, BATCH, {}, seed=4)
    assert np.array_equal(first.choosing[1].arrays["x"], again.choosing[1].arrays["x"])
    assert not np.array_equal(first.choosing[1].arrays["x"], other.choosing[1].arrays["x"])


def test_generated_values_keep_to_their_bounds() -> None:
    samples = generate(PICTURE, BOTH, {"x": (0.0, 1.0), "y": (5, 7)}, seed=0)
    for one in (*samples.choosing, *samples.holding):
        assert 0 <= one.arrays["x"].min() <= one.arrays["x"].max() <= 1
        assert set(one.arrays["y"].tolist()) <= {5, 6, 7}
    assert samples.notes == []


def test_whole_numbers_are_not_guessed() -> None:
    with pytest.raises(InputsUnclear, match="INT64") as refused:
        generate(PICTURE, BOTH, {}, seed=0)
    assert "--values y=0:100" in refused.value.mend


def test_texts_are_not_made_up() -> None:
    with pytest.raises(InputsUnclear, match="BYTES"):
        generate([GraphTensor("t", "BYTES", ["batch"])], BATCH, {}, seed=0)


def test_golden_cases_share_no_row_with_what_tolerances_are_chosen_on() -> None:
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    samples = from_author([{"x": rows}], ROWS, BATCH)
    choosing = {tuple(row) for one in samples.choosing for row in one.arrays["x"].tolist()}
    holding = {tuple(row) for one in samples.holding for row in one.arrays["x"].tolist()}
    assert choosing
    assert holding
    assert not choosing & holding


def test_rows_of_the_author_are_asked_at_every_size() -> None:
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    samples = from_author([{"x": rows}], ROWS, BATCH)
    assert {1, 4, 16} <= {len(one.arrays["x"]) for one in samples.choosing}
    assert {1, 4, 16} <= {len(one.arrays["x"]) for one in samples.holding}


def test_pictures_are_repeated_or_cut_to_the_sizes_that_are_asked() -> None:
    given = [{"x": np.full((1, 10 + at), at, np.float32), "y": np.array([at])} for at in range(4)]
    samples = from_author(given, PICTURE, BOTH)
    for one in samples.choosing:
        assert one.arrays["x"].shape == (one.sizes["batch"], one.sizes["height"])
        assert np.array_equal(one.arrays["x"][:, 0].astype(int), one.arrays["y"])


def test_one_sample_is_too_few() -> None:
    with pytest.raises(InputsUnclear) as refused:
        from_author([{"x": np.zeros((1, 3), np.float32)}], ROWS, BATCH)
    assert refused.value.code == "SAMPLES_FEW"


@pytest.mark.parametrize("array", [np.zeros((4, 3)), np.zeros((4, 2), "f4"), np.zeros(3, "f4")])
def test_a_sample_of_another_form_is_refused(array: Array) -> None:
    with pytest.raises(InputsUnclear) as refused:
        from_author([{"x": array}], ROWS, BATCH)
    assert refused.value.code == "SAMPLES_FORM"


def test_samples_are_read_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    np.save(tmp_path / "one/x.npy", np.zeros((2, 8), "f4"))
    np.save(tmp_path / "one/y.npy", np.zeros(2, np.int64))
    np.savez(tmp_path / "two.npz", x=np.ones((2, 8), "f4"), y=np.ones(2, np.int64))
    found = read_samples(tmp_path, PICTURE)
    assert [float(one["x"][0, 0]) for one in found] == [0.0, 1.0]


def test_texts_are_read_as_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array(["Köln", "Ulm"]))
    (found,) = read_samples(tmp_path / "t.npy", [GraphTensor("t", "BYTES", ["rows"])])
    assert found["t"].tolist() == ["Köln".encode(), b"Ulm"]


def test_pickled_samples_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(InputsUnclear) as refused:
        read_samples(tmp_path, ROWS)
    assert refused.value.code == "SAMPLES_UNREADABLE"
