"""Whole numbers in a datatype: exactly, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superbrain.wire.whole_numbers import integers_of, not_held, spell_integer

WHOLE = st.integers(-(2**70), 2**70) | st.integers(-(2**24) - 3, 2**24 + 3)


@given(st.lists(WHOLE))
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_first_that_a_float_rounds_is_found(dtype: str, numbers: list[int]) -> None:
    with np.errstate(over="ignore"):
        rounded = [one for one in numbers if float(np.dtype(dtype).type(float(one))) != one]
    assert not_held([0.1, *numbers], np.dtype(dtype)) == (rounded[0] if rounded else None)


@given(st.lists(WHOLE))
def test_whole_numbers_stay_what_they_are(numbers: list[int]) -> None:
    found = integers_of([numbers, numbers])
    assert found is not None
    assert found.tolist() == [numbers, numbers]


@pytest.mark.parametrize("value", [0.5, [1, 1.0], [True, 2**64], ["1"], [None], np.array([1.0])])
def test_what_is_not_whole_is_none(value: object) -> None:
    assert integers_of(value) is None


def test_an_absurd_number_is_not_written_out() -> None:
    assert spell_integer(2**64) == "18446744073709551616"
    assert spell_integer(10**5000) == "of 16610 bits"
