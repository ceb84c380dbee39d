"""The golden comparison: what passes, what fails, and what is said about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from superbrain.domain.golden import compare, compare_all, spell_tolerance
from superbrain.domain.manifest import Close, Cosine, Exact, Tolerance, TopK
from superbrain.domain.proof import OutputFigures

Array = np.ndarray[Any, np.dtype[Any]]
EXACT, CLOSE = Exact(), Close(rtol=1e-3, atol=1e-4)
WIDEST = Close(rtol=0.999, atol=1000.0)
EVERY_KIND: list[Tolerance] = [EXACT, CLOSE, WIDEST, Cosine(0.01), TopK(1, 0.01)]
NAN, INF = float("nan"), float("inf")


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def texts(*values: bytes) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def judge(expected: Array, actual: Array, tolerance: Tolerance) -> OutputFigures:
    return compare("page", "y", "", expected, actual, tolerance)


PASSES: dict[str, tuple[Array, Array, Tolerance]] = {
    "exact floats": (floats(1, 2), floats(1, 2), EXACT),
    "exact minus zero": (floats(0.0), floats(-0.0), EXACT),
    "exact booleans": (np.array([True, False]), np.array([True, False]), EXACT),
    "exact text": (texts(b"a", b""), texts(b"a", b""), EXACT),
    "exact scalar text": (texts(b"a")[0:1].reshape(()), texts(b"a").reshape(()), EXACT),
    "exact infinity in its place": (floats(INF, -INF), floats(INF, -INF), EXACT),
    "close at the limit": (np.array([1000.0]), np.array([1001.0]), Close(rtol=1e-3, atol=0.0)),
    "close absolute": (floats(0.0), floats(0.0001), CLOSE),
    "close scalar": (np.array(2.0), np.array(2.001), CLOSE),
    "close infinity in its place": (floats(INF, 1), floats(INF, 1), CLOSE),
    "close integers": (np.array([10], np.uint8), np.array([9], np.uint8), Close(0.0, 1.0)),
    "cosine": (floats(1, 2, 3), floats(2, 4, 6.1), Cosine(0.999)),
    "cosine of zeros": (floats(0, 0), floats(0, 0), Cosine(1.0)),
    "top k in another order": (floats(1, 5, 4, 0), floats(1, 4, 5, 0), TopK(2)),
    "top k in enough rows": (
        np.array([[0, 1], [1, 0], [0, 1], [0, 1]], np.float32),
        np.array([[0, 1], [0, 1], [0, 1], [0, 1]], np.float32),
        TopK(1, 0.75),
    ),
    "empty": (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), EXACT),
    "empty close": (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), CLOSE),
    "empty top k": (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), TopK(1)),
    "empty text": (texts(), texts(), EXACT),
}


@pytest.mark.parametrize("name", PASSES)
def test_near_enough_passes_without_a_reason(name: str) -> None:
    figures = judge(*PASSES[name])
    assert (figures.passed, figures.reason) == (True, "")


FAILS: dict[str, tuple[Array, Array, Tolerance, str]] = {
    "exact": (
        floats(1, 2, 3),
        floats(1, 2.5, 4),
        EXACT,
        "expected 2 at [1], found 2.5 (2 of 3 elements differ)",
    ),
    "exact text": (
        texts(b"cat"),
        texts(b"dog"),
        EXACT,
        "expected 'cat' at [0], found 'dog'",
    ),
    "exact scalar text": (
        texts(b"270").reshape(()),
        texts(b"90").reshape(()),
        EXACT,
        "expected '270', found '90'",
    ),
    "exact bytes that are no text": (
        texts(b"\xff", b"a"),
        texts(b"\xfe", b"a"),
        EXACT,
        "expected b'\\xff' at [0], found b'\\xfe' (1 of 2 elements differ)",
    ),
    "exact boolean": (
        np.array([True]),
        np.array([False]),
        EXACT,
        "expected True at [0], found False",
    ),
    "close": (
        np.array([[1.0, 0.02]]),
        np.array([[1.0, 0.33]]),
        CLOSE,
        "largest error 0.31 at [0, 1] is above atol 0.0001 + rtol 0.001 × |0.02|",
    ),
    "close in several places": (
        floats(0, 0, 0),
        floats(1, 0, 2),
        CLOSE,
        "largest error 2 at [2] is above atol 0.0001 + rtol 0.001 × |0| (2 of 3 elements are)",
    ),
    "close scalar": (
        np.array(1.0),
        np.array(2.0),
        CLOSE,
        "error 1 is above atol 0.0001 + rtol 0.001 × |1|",
    ),
    "cosine": (floats(1, 0), floats(1, 1), Cosine(0.9), "cosine 0.707107 is below 0.9"),
    "cosine of zeros against something": (
        floats(0, 0),
        floats(1, 1),
        Cosine(0.9),
        "cosine 0 is below 0.9",
    ),
    "top k": (
        floats(1, 5, 4, 0),
        floats(3, 5, 2, 0),
        TopK(2),
        "top 2: expected [1, 2], found [0, 1]",
    ),
    "top k in too few rows": (
        np.array([[0, 1], [1, 0], [0, 1], [0, 1]], np.float32),
        np.array([[0, 1], [0, 1], [1, 0], [0, 1]], np.float32),
        TopK(1, 0.75),
        "the top 1 agree in 2 of 4 rows, below 0.75; row 1: expected [0], found [1]",
    ),
    "top k of a scalar": (
        np.array(1.0),
        np.array(1.0),
        TopK(1),
        "expected at least 1 values along the last axis, found FP64[]",
    ),
    "top k beyond the classes": (
        floats(1, 2),
        floats(1, 2),
        TopK(3),
        "expected at least 3 values along the last axis, found FP32[2]",
    ),
    "datatype": (
        floats(1),
        np.array([1.0]),
        WIDEST,
        "expected FP32[1], found FP64[1]",
    ),
    "shape": (
        floats(1, 2),
        floats(1, 2).reshape(2, 1),
        WIDEST,
        "expected FP32[2], found FP32[2, 1]",
    ),
    "empty against something": (floats(), floats(1), WIDEST, "expected FP32[0], found FP32[1]"),
    "empty of another shape": (
        np.zeros((0, 2), np.float32),
        np.zeros((2, 0), np.float32),
        WIDEST,
        "expected FP32[0, 2], found FP32[2, 0]",
    ),
    "NaN found": (
        floats(1, 2),
        floats(1, NAN),
        WIDEST,
        "expected numbers, found NaN at [1] (1 of 2)",
    ),
    "NaN recorded": (
        floats(NAN, 2),
        floats(1, 2),
        WIDEST,
        "expected numbers, recorded NaN at [0] (1 of 2)",
    ),
    "NaN on both sides": (
        floats(NAN),
        floats(NAN),
        EXACT,
        "expected numbers, recorded NaN at [0]",
    ),
    "NaN in a scalar": (np.array(1.0), np.array(NAN), WIDEST, "expected numbers, found NaN"),
    "infinity in a scalar": (np.array(1.0), np.array(INF), WIDEST, "expected 1, found inf"),
    "infinity found": (floats(1.0), floats(INF), WIDEST, "expected 1 at [0], found inf"),
    "infinity of the other sign": (
        floats(-INF),
        floats(INF),
        WIDEST,
        "expected -inf at [0], found inf",
    ),
    "infinity recorded only": (
        floats(INF),
        floats(3e38),
        WIDEST,
        "expected inf at [0], found 3e+38",
    ),
    "text is never close": (
        texts(b"a"),
        texts(b"a"),
        CLOSE,
        "expected tolerance exact for BYTES[1]",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_too_far_off_fails_with_a_sentence(name: str) -> None:
    expected, actual, tolerance, sentence = FAILS[name]
    figures = judge(expected, actual, tolerance)
    assert (figures.passed, figures.reason) == (False, sentence)


def test_figures_are_there_when_it_passes() -> None:
    figures = judge(floats(1, 2), floats(1, 2), EXACT)
    assert (figures.max_abs_error, figures.max_rel_error) == (0.0, 0.0)
    assert figures.cosine == pytest.approx(1.0)


def test_figures_are_there_when_it_fails() -> None:
    figures = judge(floats(0, 3), floats(4, 0), EXACT)
    assert (figures.max_abs_error, figures.max_rel_error, figures.cosine) == (4.0, 1.0, 0.0)


def test_relative_error_is_taken_where_something_else_than_zero_is_expected() -> None:
    assert judge(floats(0, 2), floats(9, 3), EXACT).max_rel_error == 0.5


def test_relative_error_has_no_meaning_where_only_zeros_are_expected() -> None:
    assert judge(floats(0, 0), floats(1, 1), EXACT).max_rel_error is None


def test_figures_beside_a_nan_are_those_of_the_other_elements() -> None:
    assert judge(floats(1, 1), floats(NAN, 3), EXACT).max_abs_error == 2.0


def test_a_single_number_has_no_cosine_which_would_be_1_however_far_off_it_is() -> None:
    assert judge(floats(1), floats(900), WIDEST).cosine is None


def test_a_cosine_that_decides_is_told_even_of_a_single_number() -> None:
    assert judge(floats(1), floats(-1), Cosine(0.5)).cosine == -1.0


def test_text_has_no_figures() -> None:
    figures = judge(texts(b"a"), texts(b"b"), EXACT)
    assert (figures.max_abs_error, figures.max_rel_error, figures.cosine) == (None, None, None)


def test_tensors_of_different_shapes_have_no_figures() -> None:
    assert judge(floats(1), floats(1, 2), EXACT).max_abs_error is None


@pytest.mark.parametrize(
    ("datatype", "low", "high"), [("i8", -(2**63), 2**63 - 1), ("u8", 0, 2**64 - 1)]
)
def test_the_distance_of_large_integers_does_not_overflow(
    datatype: str, low: int, high: int
) -> None:
    figures = judge(np.array([low], datatype), np.array([high], datatype), WIDEST)
    assert figures.max_abs_error == pytest.approx(2.0**64)
    assert not figures.passed


def test_neighbouring_large_integers_are_told_apart() -> None:
    one, other = np.array([2**62]), np.array([2**62 + 1])
    assert not judge(one, other, Close(rtol=0.0, atol=0.5)).passed


def test_a_distance_beyond_what_floats_hold_fails() -> None:
    assert not judge(np.array([1.7e308]), np.array([-1.7e308]), WIDEST).passed


def test_every_output_gets_its_figures() -> None:
    arrays = {"a": floats(1), "b": floats(2)}
    figures = compare_all("page", "det", arrays, arrays, {"a": EXACT, "b": CLOSE})
    assert [(one.case, one.graph, one.output, one.passed) for one in figures] == [
        ("page", "det", "a", True),
        ("page", "det", "b", True),
    ]


def test_a_missing_output_fails() -> None:
    (figures,) = compare_all("page", "", {"a": floats(1)}, {}, {"a": EXACT})
    assert figures.reason == "expected this output, found only none"


def test_an_unexpected_output_fails() -> None:
    arrays = {"a": floats(1)}
    *_, extra = compare_all("page", "", arrays, {**arrays, "z": floats(1)}, {"a": EXACT})
    assert (extra.output, extra.passed) == ("z", False)
    assert extra.reason == "expected outputs 'a', found this one as well"


def test_an_output_without_a_tolerance_fails() -> None:
    arrays = {"a": floats(1)}
    (figures,) = compare_all("page", "", arrays, arrays, {})
    assert figures.reason == "expected a tolerance for this output, found none"


@pytest.mark.parametrize(
    ("tolerance", "spelled"),
    [
        (EXACT, "exact"),
        (CLOSE, "rtol 0.001, atol 0.0001"),
        (Cosine(0.999), "cosine ≥ 0.999"),
        (TopK(5, 0.9), "top 5 ≥ 0.9"),
    ],
)
def test_a_tolerance_is_spelled_for_people(tolerance: Tolerance, spelled: str) -> None:
    assert spell_tolerance(tolerance) == spelled


NUMBERS = st.sampled_from(["f2", "f4", "f8", "i1", "i4", "i8", "u1", "u8", "?"])
SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ANY_ARRAY = NUMBERS.flatmap(lambda datatype: npst.arrays(datatype, SHAPES))


@given(array=ANY_ARRAY, tolerance=st.sampled_from([EXACT, CLOSE, WIDEST]))
def test_an_array_always_matches_itself_unless_it_holds_a_nan(
    array: Array, tolerance: Tolerance
) -> None:
    has_nan = array.dtype.kind == "f" and bool(np.isnan(array).any())
    assert judge(array, array.copy(), tolerance).passed is not has_nan


@given(array=npst.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e3, 1e3, width=32)))
def test_an_array_has_a_cosine_of_one_with_itself(array: Array) -> None:
    assert judge(array, array.copy(), Cosine(1.0)).passed


@given(
    first=npst.arrays(np.float64, 4, elements=st.floats(-1e6, 1e6)),
    second=npst.arrays(np.float64, 4, elements=st.floats(-1e6, 1e6)),
)
def test_close_agrees_with_numpy(first: Array, second: Array) -> None:
    passed = judge(first, second, Close(rtol=1e-2, atol=1.0)).passed
    assert passed == np.allclose(second, first, rtol=1e-2, atol=1.0)


@given(expected=ANY_ARRAY, actual=ANY_ARRAY, tolerance=st.sampled_from(EVERY_KIND))
def test_whatever_is_compared_ends_in_a_verdict_with_a_reason(
    expected: Array, actual: Array, tolerance: Tolerance
) -> None:
    figures = judge(expected, actual, tolerance)
    assert figures.passed is (figures.reason == "")
    if figures.passed:
        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape)
