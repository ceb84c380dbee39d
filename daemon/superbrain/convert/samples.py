"""What original and graph are asked: samples at every size that matters, from real data or a seed.

Two sets that share nothing: `choosing`, from whose errors a tolerance is derived, and `holding`,
which becomes the golden cases. The author's samples are dealt to both in turn; where the first
axis of all inputs is one dynamic size, rows are dealt: one table or one stack of images is enough.
Other sizes than a sample has are made of it by repeating or cutting its content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from superbrain.convert.arrays import Array, read_array
from superbrain.convert.errors import InputsUnclear
from superbrain.domain.manifest import GraphTensor, Range
from superbrain.domain.tensor_fit import spell, spell_array
from superbrain.wire.datatypes import NUMPY_DTYPES

Arrays = dict[str, Array]
Sizes = dict[str, int]
Values = Mapping[str, tuple[float, float]]


class Sample(NamedTuple):
    """One question: a name, its sizes, its arrays."""

    name: str
    sizes: Sizes
    arrays: Arrays


class Samples(NamedTuple):
    """Both sets, and what a person should know about them."""

    choosing: list[Sample]
    holding: list[Sample]
    notes: list[str]


def size_plans(dynamic: Mapping[str, Range]) -> list[Sizes]:
    """All sizes smallest, typical and largest; then each at three or more, the others typical."""
    typical = {name: one.opt for name, one in dynamic.items()}
    plans = [
        {name: one.min for name, one in dynamic.items()},
        typical,
        {name: one.max for name, one in dynamic.items()},
    ]
    plans += [typical | {name: size} for name, one in dynamic.items() for size in steps(one)]
    return [plan for at, plan in enumerate(plans) if plan not in plans[:at]]


def steps(one: Range) -> list[int]:
    """At least three sizes of a range that has so many: its ends, its typical one, and between."""
    between = {(one.min + one.opt + 1) // 2, (one.opt + one.max) // 2}
    return sorted({one.min, one.opt, one.max, *between})


def generate(
    inputs: Sequence[GraphTensor], dynamic: Mapping[str, Range], values: Values, seed: int
) -> Samples:
    """Make samples up, the same for the same seed.

    Raises:
        InputsUnclear: an input whose values cannot be guessed.
    """
    notes = [_value_note(one, values) for one in inputs]
    plans = size_plans(dynamic)
    choosing, holding = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    return Samples(
        [_generated(f"c{at}", inputs, one, values, choosing) for at, one in enumerate(plans)],
        [
            _generated(name, inputs, one, values, holding)
            for name, one in _golden_plans(dynamic).items()
        ],
        [note for note in notes if note],
    )


def from_author(
    given: Sequence[Arrays], inputs: Sequence[GraphTensor], dynamic: Mapping[str, Range]
) -> Samples:
    """Deal the author's samples to both sets, at every size.

    Raises:
        InputsUnclear: too few, or one is not what an input takes.
    """
    check_samples(given, inputs)
    lead = leading(inputs)
    units = [unit for sample in given for unit in _units(sample, inputs, lead)]
    if len(units) < 2:
        raise InputsUnclear(
            f"expected two or more samples, found {len(units)}: one to choose the tolerance with, "
            f"another to try it on",
            code="SAMPLES_FEW",
            mend="Put more into the folder, or leave --samples out to have them generated",
        )
    plans, choosing, holding = size_plans(dynamic), units[::2], units[1::2]
    cases = _own_plans(holding, inputs, dynamic) | _golden_plans(dynamic)
    return Samples(
        [_composed(f"c{at}", choosing, inputs, one, lead, at) for at, one in enumerate(plans)],
        [
            _composed(name, holding, inputs, one, lead, at)
            for at, (name, one) in enumerate(cases.items())
        ],
        [f"{len(units)} samples: {len(choosing)} to choose tolerances, {len(holding)} to try them"],
    )


def read_samples(place: Path, inputs: Sequence[GraphTensor]) -> list[Arrays]:
    """Read the author's samples.

        FOLDER/SAMPLE/NAME.npy   a folder for each, a file for every input
        FOLDER/*.npz             a file for each, an array for every input
        FOLDER/*.npy, FILE.npy   for a model with one input

    Raises:
        InputsUnclear: nothing there that can be read.
    """
    paths = sorted(place.iterdir()) if place.is_dir() else [place]
    try:
        found = [arrays for path in paths if (arrays := _read_one(path, inputs))]
    except (OSError, ValueError) as error:
        raise InputsUnclear(
            f"{place}: expected samples as .npy, .npz or folders of .npy, found: {error}",
            code="SAMPLES_UNREADABLE",
        ) from error
    if not found:
        raise InputsUnclear(
            f"{place}: expected samples as .npy, .npz or folders of .npy, found none",
            code="SAMPLES_NONE",
        )
    return found


def check_samples(given: Sequence[Arrays], inputs: Sequence[GraphTensor]) -> None:
    """Hold samples to the inputs.

    Raises:
        InputsUnclear: one is not what an input takes.
    """
    for sample in given:
        _check(sample, inputs)


def leading(inputs: Sequence[GraphTensor]) -> str:
    """The dynamic size that is the first of every input; empty when there is none."""
    firsts = {one.shape[0] if one.shape else 0 for one in inputs}
    only = firsts.pop() if len(firsts) == 1 else 0
    return only if isinstance(only, str) else ""


def _golden_plans(dynamic: Mapping[str, Range]) -> dict[str, Sizes]:
    """Sizes of golden cases by name; one name when there is but one size."""
    plans: dict[str, Sizes] = {"typical": {name: one.opt for name, one in dynamic.items()}}
    if dynamic:
        plans["smallest"] = {name: one.min for name, one in dynamic.items()}
        plans["largest"] = {name: one.max for name, one in dynamic.items()}
    else:
        plans["another"] = {}
    return {
        name: plan
        for at, (name, plan) in enumerate(plans.items())
        if not dynamic or plan not in list(plans.values())[:at]
    }


def _own_plans(
    units: Sequence[Arrays], inputs: Sequence[GraphTensor], dynamic: Mapping[str, Range]
) -> dict[str, Sizes]:
    """The sizes that the first of the author's samples have, when they may be served."""
    plans = {f"sample-{at}": _sizes(unit, inputs) for at, unit in enumerate(units[:2])}
    return {
        name: plan
        for name, plan in plans.items()
        if all(dynamic[size].min <= value <= dynamic[size].max for size, value in plan.items())
    }


def _generated(
    name: str, inputs: Sequence[GraphTensor], sizes: Sizes, values: Values, rng: np.random.Generator
) -> Sample:
    arrays = {
        one.name: _made_up(
            one, [sizes[s] if isinstance(s, str) else s for s in one.shape], values, rng
        )
        for one in inputs
    }
    return Sample(name, sizes, arrays)


def _made_up(
    one: GraphTensor, shape: Sequence[int], values: Values, rng: np.random.Generator
) -> Array:
    bounds = values.get(one.name)
    if one.datatype == "BOOL":
        return rng.integers(0, 2, shape).astype(bool)
    dtype = NUMPY_DTYPES[one.datatype] if one.datatype != "BYTES" else None
    if dtype is None or (dtype.kind in "iu" and bounds is None):
        raise InputsUnclear(
            f"input {one.name!r}: expected to know what {one.datatype} values it may have",
            code="SAMPLES_VALUES",
            mend="Give real ones with --samples DIR"
            + ("" if dtype is None else f", or their range: --values {one.name}=0:100"),
        )
    if bounds is None:
        return rng.standard_normal(shape).astype(dtype)
    low, high = bounds
    if dtype.kind in "iu":
        return rng.integers(int(low), int(high), shape, endpoint=True).astype(dtype)
    return rng.uniform(low, high, shape).astype(dtype)


def _value_note(one: GraphTensor, values: Values) -> str:
    if one.name in values or one.datatype not in {"FP16", "FP32", "FP64"}:
        return ""
    return (
        f"samples of {one.name!r} are made up, normally distributed around 0; real ones are better "
        f"(--samples), or their range (--values {one.name}=0:1)"
    )


def _units(sample: Arrays, inputs: Sequence[GraphTensor], lead: str) -> Iterator[Arrays]:
    if not lead:
        yield sample
        return
    for row in range(min(len(sample[one.name]) for one in inputs)):
        yield {name: array[row : row + 1] for name, array in sample.items()}


def _composed(
    name: str,
    units: Sequence[Arrays],
    inputs: Sequence[GraphTensor],
    sizes: Sizes,
    lead: str,
    at: int,
) -> Sample:
    """One sample of these sizes: rows of several units where rows were dealt, else of one."""
    count = sizes[lead] if lead else 1
    parts = [units[(at + row) % len(units)] for row in range(max(count, 1))]
    arrays = {}
    for one in inputs:
        fitted = [_fitted(part[one.name], one, sizes, lead) for part in parts]
        joined = np.concatenate(fitted)[:count] if lead else fitted[0]
        arrays[one.name] = np.ascontiguousarray(joined)
    return Sample(name, sizes, arrays)


def _fitted(array: Array, one: GraphTensor, sizes: Sizes, lead: str) -> Array:
    for axis, size in enumerate(one.shape):
        if isinstance(size, str) and size != lead and array.shape[axis] != sizes[size]:
            array = np.take(array, range(sizes[size]), axis=axis, mode="wrap")
    return array


def _sizes(sample: Arrays, inputs: Sequence[GraphTensor]) -> Sizes:
    return {
        size: sample[one.name].shape[axis]
        for one in inputs
        for axis, size in enumerate(one.shape)
        if isinstance(size, str)
    }


def _read_one(path: Path, inputs: Sequence[GraphTensor]) -> Arrays:
    if path.is_dir():
        return {one.name: _read_file(path, one.name) for one in inputs}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as found:
            return {name: _plain(found[name]) for name in found.files}
    if path.suffix == ".npy" and len(inputs) == 1:
        return {inputs[0].name: read_array(path)}
    return {}


def _read_file(folder: Path, name: str) -> Array:
    texts = folder / f"{name}.json"
    if texts.exists():
        listed = msgspec.json.decode(texts.read_bytes(), type=list[str])
        return _plain(np.array(listed, dtype=np.str_))
    return read_array(folder / f"{name}.npy")


def _plain(array: Array) -> Array:
    if array.dtype.kind != "U":
        return array
    return np.array([t.encode() for t in array.reshape(-1).tolist()], object).reshape(array.shape)


def _check(sample: Arrays, inputs: Sequence[GraphTensor]) -> None:
    for one in inputs:
        found = sample.get(one.name)
        dtype = NUMPY_DTYPES.get(one.datatype, np.dtype(object))
        fits = (
            found is not None
            and found.dtype == dtype
            and found.ndim == len(one.shape)
            and all(
                isinstance(s, str) or s == size
                for s, size in zip(one.shape, found.shape, strict=True)
            )
        )
        if not fits:
            raise InputsUnclear(
                f"samples: expected {one.name!r} as {spell(one.datatype, one.shape)}, found "
                f"{'none' if found is None else spell_array(found)}",
                code="SAMPLES_FORM",
                mend=f"Save it with numpy.save as {dtype.name}",
            )
