"""How far apart two numeric tensors are: the figures of a proof.

Figures are taken over the elements that are finite on both sides, in float64; integers are
subtracted as integers first, so that large ones lose nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Figures(NamedTuple):
    """How far apart two tensors are; None where a figure has no meaning."""

    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cosine: float | None = None


def measure(expected: Array, actual: Array) -> Figures:
    """Compute the figures of two numeric tensors of the same shape."""
    if expected.shape != actual.shape or not (is_numeric(expected) and is_numeric(actual)):
        return Figures()
    if not expected.size:
        return Figures(0.0, 0.0, 1.0)
    finite = np.isfinite(expected) & np.isfinite(actual)
    wanted, got = expected[finite], actual[finite]
    if not wanted.size:
        return Figures()
    error = distance(wanted, got)
    size = np.abs(wanted.astype(np.float64))
    with np.errstate(over="ignore"):
        relative = error[size > 0] / size[size > 0]
    return Figures(
        max_abs_error=float(error.max()),
        max_rel_error=float(relative.max()) if relative.size else None,
        cosine=cosine_similarity(wanted.astype(np.float64), got.astype(np.float64)),
    )


def distance(expected: Array, actual: Array) -> Array:
    """|actual - expected| in float64; for integers without rounding or overflow before that."""
    if expected.dtype.kind in "biu" and expected.dtype == actual.dtype:
        larger, smaller = np.maximum(expected, actual), np.minimum(expected, actual)
        return (larger.astype(np.uint64) - smaller.astype(np.uint64)).astype(np.float64)
    with np.errstate(over="ignore"):
        return np.abs(actual.astype(np.float64) - expected.astype(np.float64))


def cosine_similarity(expected: Array, actual: Array) -> float:
    """Cosine similarity; two zero vectors are alike, a zero vector is like no other."""
    scale_expected, scale_actual = np.abs(expected).max(), np.abs(actual).max()
    if scale_expected == 0 or scale_actual == 0:
        return 1.0 if scale_expected == scale_actual else 0.0
    first, second = expected / scale_expected, actual / scale_actual
    norms = np.sqrt(first @ first) * np.sqrt(second @ second)
    # Rounded, so that equal tensors have a cosine of exactly 1 whatever their norms round to.
    return round(float(np.clip((first @ second) / norms, -1.0, 1.0)), 12)


def is_numeric(array: Array) -> bool:
    """Whether figures have a meaning for this array: numbers and booleans."""
    return array.dtype.kind in "biuf"
