"""Whole numbers of Python as the elements of a tensor: exactly, or not at all.

numpy makes float64 of a list of which one number is above INT64 and another below, and rounds
whole numbers into floats without a word. A float of Python is rounded into a datatype, for that is
how 0.1 is written at all; a whole number means itself.

>>> integers_of([2**64 - 1, 1]).tolist()
[18446744073709551615, 1]
>>> not_held([0.1, 2**24 + 1], np.dtype("f4"))
16777217
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from superbrain.wire.datatypes import Array

_MOST_BITS: Final = 256


def integers_of(value: object) -> Array | None:
    """Give numbers, in lists or not, as an array of Python's integers; None if some are none."""
    array = np.asarray(value, dtype=object)
    return array if all(map(_is_whole, array.reshape(-1).tolist())) else None


def not_held(value: object, dtype: np.dtype[Any]) -> int | None:
    """Give the first whole number among numbers, in lists or not, that a float datatype rounds.

    Args:
        value: the numbers; an array of floats has none that are whole.
        dtype: a float.
    """
    exact = 1 << (np.finfo(dtype).nmant + 1)  # up to here all are held
    loose = np.asarray(value)
    if loose.dtype.kind in "iuf" and (not loose.size or np.abs(loose.astype("f8")).max() < exact):
        return None
    for number in np.asarray(value, dtype=object).reshape(-1).tolist():
        if _is_whole(number) and abs(number) > exact and not _holds(dtype, number):
            return int(number)
    return None


def spell_integer(number: int) -> str:
    """Write a whole number for a message; of an absurd one only how large it is."""
    return str(number) if number.bit_length() <= _MOST_BITS else f"of {number.bit_length()} bits"


def _is_whole(number: object) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def _holds(dtype: np.dtype[Any], number: int) -> bool:
    try:
        with np.errstate(over="ignore"):
            held = float(dtype.type(float(number)))
    except OverflowError:
        return False
    return held == int(number)  # Python compares a float and a whole number exactly
