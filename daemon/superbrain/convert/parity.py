"""How near the graph comes to the original, and which tolerance follows from it.

An error is measured against the size of what it is an error of,

    share = |graph - original| / (|original| + scale)

where scale is the root mean square of all originals: a value near zero is not held to more than
its neighbours. The graph agrees when the largest share over all samples stays within a limit.
The tolerance is ten times the largest share, and at least what other processors may differ by
(1e-5, and 2e-3 in half precision),

    rtol = 10 x share     atol = rtol x scale

both rounded up to 1, 2 or 5 times a power of ten. It is chosen on one set of samples and tried on
another, which becomes the golden cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from superbrain.convert.arrays import Array
from superbrain.convert.errors import ParityFailed
from superbrain.convert.samples import Sizes
from superbrain.domain.golden import compare, spell_tolerance
from superbrain.domain.manifest import Close, Exact, Tolerance
from superbrain.domain.tensor_fit import spell_array

WITHIN = 1e-3
MARGIN = 10.0
_LEAST = {2: 2e-3, 4: 1e-5, 8: 1e-5}
_LEAST_OF = {"fp16": 2e-3, "int8": 2e-3}
_TINY = 1e-6
_NO_NUMBERS = "NaN or infinity"


class Pair(NamedTuple):
    """What both sides answered to one sample, output by output."""

    sample: str
    sizes: Sizes
    original: list[Array]
    graph: list[Array]


class OutputParity(msgspec.Struct, frozen=True):
    """One output over all samples that tolerances were chosen on, and over the golden cases.

    `share` is the largest error as a share of the values' size; `held_share` the same on the cases.
    Where there is no error to measure, `apart` says what differs instead: shapes, or NaN on a side.
    """

    output: str
    samples: int
    agrees: bool
    max_abs_error: float
    share: float
    scale: float
    worst_sizes: Sizes
    tolerance: Tolerance
    tolerance_text: str
    reason: str = ""
    held_share: float = 0.0
    constant: bool = False
    apart: str = ""


def measure(
    name: str,
    at: int,
    pairs: Sequence[Pair],
    within: float,
    *,
    margin: float = MARGIN,
    least: str = "",
) -> OutputParity:
    """Compare one output over all samples.

    Args:
        name: of the output.
        at: its place in the answers.
        pairs: what both sides answered.
        within: the largest share that is still the same model.
        margin: how often the largest share the tolerance is.
        least: the precision inside the graph, where it is not that of its outputs.
    """
    scale = _scale([pair.original[at] for pair in pairs])
    found = [_apart(pair.original[at], pair.graph[at], scale) for pair in pairs]
    worst = max(
        range(len(pairs)), key=lambda index: (found[index].share, bool(found[index].reason))
    )
    share, reason = found[worst].share, next((one.reason for one in found if one.reason), "")
    if not reason and share > within:
        reason = f"errors of up to {share:.2g} of the values' size, expected {within:g} at most"
    like = pairs[0].original[at]
    at_least = _LEAST_OF.get(least) or _LEAST.get(like.dtype.itemsize, 0.0)
    tolerance = _tolerance(like, margin * share, at_least, scale)
    return OutputParity(
        output=name,
        samples=len(pairs),
        agrees=not reason,
        max_abs_error=max(one.max_abs for one in found),
        share=share,
        scale=scale,
        worst_sizes=pairs[worst].sizes,
        tolerance=tolerance,
        tolerance_text=spell_tolerance(tolerance),
        reason=reason,
        constant=_constant([pair.original[at] for pair in pairs]),
        apart=found[worst].apart,
    )


def hold(figures: Sequence[OutputParity], pairs: Sequence[Pair]) -> list[OutputParity]:
    """Try the chosen tolerances on samples that they were not chosen on.

    Raises:
        ParityFailed: one does not hold there.
    """
    held = []
    for at, one in enumerate(figures):
        for pair in pairs:
            result = compare(
                pair.sample, one.output, "", pair.original[at], pair.graph[at], one.tolerance
            )
            if not result.passed:
                raise ParityFailed(
                    f"output {one.output!r}: expected the tolerance of {one.samples} samples "
                    f"({one.tolerance_text}) to hold for others, found in {pair.sample}: "
                    f"{result.reason}",
                    code="PARITY_HOLDOUT",
                    mend="Give more samples, or more like what callers send (--samples)",
                )
        shares = [_apart(pair.original[at], pair.graph[at], one.scale).share for pair in pairs]
        held.append(msgspec.structs.replace(one, held_share=max(shares, default=0.0)))
    return held


def as_graph(original: Array, graph: Array) -> Array:
    """The original's answer in the graph's precision: float64 as float32, no floats as integers."""
    both = (original.dtype.kind, graph.dtype.kind)
    same = both == ("f", "f") or (both[0] in "iu" and both[1] in "iu")
    if not same or original.dtype == graph.dtype:
        return original
    cast = original.astype(graph.dtype)
    exact = original.dtype.kind == "f" or np.array_equal(cast.astype(original.dtype), original)
    return cast if exact else original


class _Apart(NamedTuple):
    share: float
    max_abs: float
    reason: str
    apart: str = ""


def _apart(original: Array, graph: Array, scale: float) -> _Apart:
    if original.shape != graph.shape or original.dtype != graph.dtype:
        return _Apart(
            math.inf,
            math.inf,
            f"the original answers {spell_array(original)}, the graph {spell_array(graph)}",
            f"{spell_array(original)} ≠ {spell_array(graph)}",
        )
    if original.dtype.kind != "f":
        different = int(np.count_nonzero(original != graph))
        reason = f"{different} of {original.size} values differ, expected none" if different else ""
        return _Apart(different / max(original.size, 1), float(bool(different)), reason)
    if not np.isfinite(original).all():
        return _Apart(math.inf, math.inf, "the original answers with NaN or infinity", _NO_NUMBERS)
    if not np.isfinite(graph).all():
        return _Apart(math.inf, math.inf, "the graph answers with NaN or infinity", _NO_NUMBERS)
    if not original.size:
        return _Apart(0.0, 0.0, "")
    wanted = original.astype(np.float64)
    error = np.abs(graph.astype(np.float64) - wanted)
    size = np.abs(wanted) + scale
    share = np.divide(error, size, out=np.where(error > 0, np.inf, 0.0), where=size > 0)
    return _Apart(float(share.max()), float(error.max()), "")


def _scale(arrays: Sequence[Array]) -> float:
    """Root mean square of all finite values."""
    floats = [one.astype(np.float64).reshape(-1) for one in arrays if one.dtype.kind == "f"]
    values = np.concatenate(floats) if floats else np.zeros(0)
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def _tolerance(like: Array, share: float, least: float, scale: float) -> Tolerance:
    if like.dtype.kind != "f":
        return Exact()
    rtol = round_up(min(max(share, least), 0.5))
    return Close(rtol=rtol, atol=min(round_up(max(rtol * scale, _TINY)), 1000.0))


def round_up(number: float) -> float:
    """The next 1, 2 or 5 times a power of ten.

    >>> round_up(3e-6)
    5e-06
    """
    power = math.floor(math.log10(number))
    for digit in (1, 2, 5, 10):
        found = float(f"{digit}e{power}")
        if found >= number * (1 - 1e-12):
            return found
    return float(f"1e{power + 1}")


def _constant(arrays: Sequence[Array]) -> bool:
    """Whether an output never says anything else: a golden of it would prove nothing."""
    firsts = [one.reshape(-1)[:1].tolist() for one in arrays if one.size]
    return len(firsts) > 1 and all(
        one.size
        and bool(np.all(one == one.reshape(-1)[0]))
        and one.reshape(-1)[:1].tolist() == firsts[0]
        for one in arrays
        if one.size
    )
