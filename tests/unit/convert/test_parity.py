"""How near is near enough, and which tolerance follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rich.console import Console

from superbrain.cli.convert_view import parity_view
from superbrain.convert.errors import ParityFailed
from superbrain.convert.parity import WITHIN, Pair, as_graph, hold, measure, round_up
from superbrain.domain.manifest import Close, Exact

Array = np.ndarray[Any, np.dtype[Any]]


def pair(original: Array, graph: Array, name: str = "typical") -> Pair:
    return Pair(name, {"batch": len(original)}, [original], [graph])


def values(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


def test_the_tolerance_is_ten_times_the_largest_share() -> None:
    found = measure("y", 0, [pair(values(1, -1), values(1, -1.0001))], WITHIN)
    assert found.agrees
    assert found.share == pytest.approx(5e-5, rel=0.01)
    assert found.tolerance == Close(rtol=1e-3, atol=1e-3)


def test_equal_answers_leave_room_for_other_processors() -> None:
    found = measure("y", 0, [pair(values(1, -1), values(1, -1))], WITHIN)
    assert found.tolerance == Close(rtol=1e-5, atol=1e-5)


def test_half_precision_has_more_room() -> None:
    halves = values(1, 2).astype(np.float16)
    found = measure("y", 0, [pair(halves, halves)], WITHIN)
    assert found.tolerance == Close(rtol=2e-3, atol=5e-3)


def test_a_value_near_zero_is_held_to_no_more_than_its_neighbours() -> None:
    found = measure("y", 0, [pair(values(0, 100), values(0.01, 100))], WITHIN)
    assert found.agrees


def test_an_error_beyond_the_limit_does_not_agree_and_names_its_sizes() -> None:
    pairs = [pair(values(1, 2), values(1, 2)), pair(values(1, 2, 3), values(1, 2, 3.5))]
    found = measure("y", 0, pairs, WITHIN)
    assert (found.agrees, found.worst_sizes) == (False, {"batch": 3})
    assert "expected 0.001 at most" in found.reason


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["original", "graph"])
def test_answers_that_are_no_numbers_never_agree(wrong: float, side: str) -> None:
    both = (values(1, wrong), values(1, 2))
    found = measure("y", 0, [pair(*(both if side == "original" else both[::-1]))], WITHIN)
    assert not found.agrees
    assert side in found.reason


def test_another_shape_never_agrees() -> None:
    found = measure("y", 0, [pair(values(1, 2), values(1, 2).reshape(2, 1))], WITHIN)
    assert not found.agrees
    assert "the graph FP32[2, 1]" in found.reason
    console = Console(width=200)
    with console.capture() as captured:
        console.print(parity_view(console, [found]))
    assert "FP32[2] ≠ FP32[2, 1]" in captured.get()
    assert "inf" not in captured.get()


def test_whole_numbers_and_texts_have_to_be_equal() -> None:
    labels = np.array([1, 2, 3])
    same = measure("label", 0, [pair(labels, labels)], WITHIN)
    other = measure("label", 0, [pair(labels, np.array([1, 2, 4]))], WITHIN)
    assert (same.tolerance, same.agrees, other.agrees) == (Exact(), True, False)
    assert "1 of 3 values differ" in other.reason


def test_an_output_that_never_changes_is_noticed() -> None:
    still = [
        pair(np.zeros((size, 2), np.float32), np.zeros((size, 2), np.float32)) for size in (1, 4)
    ]
    moving = [pair(values(1, 2), values(1, 2)), pair(values(1, 3), values(1, 3))]
    assert measure("y", 0, still, WITHIN).constant
    assert not measure("y", 0, moving, WITHIN).constant


def test_a_tolerance_that_does_not_hold_for_other_samples_is_refused() -> None:
    figures = [measure("y", 0, [pair(values(1, 2), values(1, 2))], WITHIN)]
    with pytest.raises(ParityFailed, match="typical") as refused:
        hold(figures, [pair(values(1, 2), values(1, 2.001))])
    assert refused.value.code == "PARITY_HOLDOUT"


def test_what_golden_cases_are_met_within_is_kept() -> None:
    figures = [measure("y", 0, [pair(values(1, 2), values(1, 2))], WITHIN)]
    (held,) = hold(figures, [pair(values(1, 2), values(1, 2.000002))])
    assert 0 < held.held_share < 1e-5


def test_the_original_is_kept_in_the_precision_of_the_graph() -> None:
    double = np.array([1.0, 1 / 3])
    assert as_graph(double, values(1, 2)).dtype == np.float32
    assert as_graph(np.array([1, 2], np.int32), np.array([1, 2])).dtype == np.int64


def test_floats_are_not_taken_for_whole_numbers() -> None:
    assert as_graph(np.array([1.0, 2.0]), np.array([1, 2])).dtype == np.float64


@pytest.mark.parametrize(("number", "expected"), [(3e-6, 5e-6), (1e-5, 1e-5), (6e-4, 1e-3), (2, 2)])
def test_tolerances_are_round_numbers(number: float, expected: float) -> None:
    assert round_up(number) == expected
