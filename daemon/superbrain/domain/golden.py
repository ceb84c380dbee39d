"""The golden comparison: whether what came out is near enough to what was recorded.

It fails closed. A datatype or shape that differs, a missing or an unexpected output, a NaN on
either side and an infinity that does not stand in the same place with the same sign all fail,
whatever the tolerance. Numbers of the same shape always get their figures, passed or not, so that
a person can see how far off an engine is.

>>> found = np.array([0, 3], "f4")
>>> compare("page", "y", "", np.zeros(2, "f4"), found, Close(rtol=0.1, atol=1)).reason
'largest error 3 at [1] is above atol 1 + rtol 0.1 × |0|'
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from superbrain.domain.figures import distance, is_numeric, measure
from superbrain.domain.manifest import Close, Cosine, Exact, Tolerance, TopK
from superbrain.domain.proof import EXACT, OutputFigures
from superbrain.domain.tensor_fit import spell_array

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, np.dtype[Any]]


def compare_all(
    case: str,
    graph: str,
    expected: Mapping[str, Array],
    actual: Mapping[str, Array],
    tolerances: Mapping[str, Tolerance],
) -> list[OutputFigures]:
    """Compare every output of one case; missing and unexpected ones are failures of their own.

    Args:
        case: name of the golden case.
        graph: name of the graph, empty for the response of the whole pipeline.
        expected: the recorded outputs.
        actual: what came out.
        tolerances: how near each output must be.
    """
    figures = [
        _compare_named(case, name, graph, wanted, actual, tolerances)
        for name, wanted in expected.items()
    ]
    extra = [name for name in actual if name not in expected]
    figures += [
        failed(case, name, graph, f"expected outputs {_list(expected)}, found this one as well")
        for name in extra
    ]
    return figures


def compare(
    case: str, output: str, graph: str, expected: Array, actual: Array, tolerance: Tolerance
) -> OutputFigures:
    """Compare one output with what was recorded."""
    figures = measure(expected, actual)
    # Of a single number the cosine is 1 or -1, however far off it is.
    telling = expected.size > 1 or isinstance(tolerance, Cosine)
    reason = _contradiction(expected, actual) or _beyond(expected, actual, tolerance)
    return OutputFigures(
        case=case,
        output=output,
        graph=graph,
        passed=not reason,
        tolerance=spell_tolerance(tolerance),
        reason=reason,
        max_abs_error=figures.max_abs_error,
        max_rel_error=figures.max_rel_error,
        cosine=figures.cosine if telling else None,
    )


def failed(case: str, output: str, graph: str, reason: str, tolerance: str = "") -> OutputFigures:
    """An output that could not be compared at all."""
    return OutputFigures(case, output, graph, passed=False, tolerance=tolerance, reason=reason)


def spell_tolerance(tolerance: Tolerance) -> str:
    """Write a tolerance for people: `rtol 0.001, atol 1e-05`."""
    match tolerance:
        case Exact():
            return EXACT
        case Close(rtol, atol):
            return f"rtol {rtol:g}, atol {atol:g}"
        case Cosine(least):
            return f"cosine ≥ {least:g}"
        case TopK(k, least):
            return f"top {k} ≥ {least:g}"


def _compare_named(
    case: str,
    name: str,
    graph: str,
    expected: Array,
    actual: Mapping[str, Array],
    tolerances: Mapping[str, Tolerance],
) -> OutputFigures:
    tolerance = tolerances.get(name)
    if tolerance is None:
        return failed(case, name, graph, "expected a tolerance for this output, found none")
    if name not in actual:
        spelled = spell_tolerance(tolerance)
        return failed(
            case, name, graph, f"expected this output, found only {_list(actual)}", spelled
        )
    return compare(case, name, graph, expected, actual[name], tolerance)


def _contradiction(expected: Array, actual: Array) -> str:
    """What no tolerance can allow: another datatype or shape, NaN, an infinity out of place."""
    if expected.dtype != actual.dtype or expected.shape != actual.shape:
        return f"expected {spell_array(expected)}, found {spell_array(actual)}"
    if expected.dtype.kind != "f":
        return ""
    for side, array in (("recorded", expected), ("found", actual)):
        if (nan := np.isnan(array)).any():
            count = "" if nan.size == 1 else f" ({nan.sum()} of {nan.size})"
            return f"expected numbers, {side} NaN{_place(_first(nan))}{count}"
    infinite = np.isinf(expected) | np.isinf(actual)
    if (apart := infinite & (expected != actual)).any():
        at = _first(apart)
        return f"expected {_at(expected, at):g}{_place(at)}, found {_at(actual, at):g}"
    return ""


def _beyond(expected: Array, actual: Array, tolerance: Tolerance) -> str:
    """Say how `actual` goes beyond `tolerance`; empty when it does not."""
    if not expected.size:
        return ""
    if not is_numeric(expected) and not isinstance(tolerance, Exact):
        return f"expected tolerance exact for {spell_array(expected)}"
    match tolerance:
        case Exact():
            return _beyond_exact(expected, actual)
        case Close():
            return _beyond_close(expected, actual, tolerance)
        case Cosine(least):
            cosine = measure(expected, actual).cosine
            if cosine is not None and cosine >= least:
                return ""
            return f"cosine {cosine if cosine is None else f'{cosine:.6g}'} is below {least:g}"
        case TopK():
            return _beyond_top_k(expected, actual, tolerance)


def _beyond_exact(expected: Array, actual: Array) -> str:
    differs = np.asarray(expected != actual)
    if not differs.any():
        return ""
    at = _first(differs)
    wanted, got = _at(expected, at), _at(actual, at)
    count = "" if differs.size == 1 else f" ({differs.sum()} of {differs.size} elements differ)"
    return f"expected {_brief(wanted)}{_place(at)}, found {_brief(got)}{count}"


def _beyond_close(expected: Array, actual: Array, tolerance: Close) -> str:
    finite = np.isfinite(expected)
    error = np.zeros(expected.shape)
    error[finite] = distance(expected[finite], actual[finite])
    size = np.zeros(expected.shape)
    size[finite] = np.abs(expected[finite].astype(np.float64))
    with np.errstate(over="ignore"):
        limit = tolerance.atol + tolerance.rtol * size
    beyond = ~(error <= limit) | np.isinf(error)
    if not beyond.any():
        return ""
    at = np.unravel_index(int(np.where(beyond, error, -1.0).argmax()), expected.shape)
    where = _place([int(index) for index in at])
    return (
        f"{'largest error' if error.size > 1 else 'error'} {float(error[at]):.6g}{where} is above "
        f"atol {tolerance.atol:g} + rtol {tolerance.rtol:g} × |{float(expected[at]):.6g}|"
        + (f" ({beyond.sum()} of {beyond.size} elements are)" if beyond.sum() > 1 else "")
    )


def _beyond_top_k(expected: Array, actual: Array, tolerance: TopK) -> str:
    k = tolerance.k
    if expected.ndim == 0 or not 1 <= k <= expected.shape[-1]:
        return f"expected at least {k} values along the last axis, found {spell_array(expected)}"
    wanted, got = _largest(expected, k), _largest(actual, k)
    same = (wanted == got).all(axis=-1)
    share = float(same.mean())
    if share >= tolerance.min:
        return ""
    row = int(np.flatnonzero(~same)[0])
    differ = f"expected {wanted[row].tolist()}, found {got[row].tolist()}"
    if same.size == 1:
        return f"top {k}: {differ}"
    return (
        f"the top {k} agree in {same.sum()} of {same.size} rows, below {tolerance.min:g}; "
        f"row {row}: {differ}"
    )


def _largest(array: Array, k: int) -> Array:
    """Indices of the `k` largest of every row, in rising order; ties go to the higher index."""
    rows = array.reshape(-1, array.shape[-1])
    return np.sort(np.argsort(rows, axis=-1, kind="stable")[:, -k:], axis=-1)


def _first(mask: Array) -> list[int]:
    """Index of the first true element."""
    return [int(index) for index in np.unravel_index(int(mask.reshape(-1).argmax()), mask.shape)]


def _at(array: Array, index: list[int]) -> Any:  # noqa: ANN401 - one element of any datatype
    return array[tuple(index)]


def _place(index: list[int]) -> str:
    """Say where in an array; a scalar has no place."""
    return f" at {index}" if index else ""


def _brief(value: object) -> str:
    if isinstance(value, np.floating):
        return f"{value:g}"
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            value = value.decode()
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _list(names: Mapping[str, Array]) -> str:
    return ", ".join(map(repr, names)) or "none"
