"""Whether a set of arrays is what was declared: names, datatypes, ranks, sizes, bounds.

One rule for every door of the system: what a caller sends, what a pipeline hands to a graph, what
a pipeline answers. A declaration is compiled once (`TensorSet`), so that checking a request costs
about a microsecond; the sentence that says what is wrong is only written when something is.

A size is a number (fixed), a name (dynamic: the same everywhere it stands, within its range when
one is given) or -1 (any).

>>> declared = TensorSet("input", [GraphTensor("x", "FP32", ["N", 3])], {"N": Range(1, 4, 8)})
>>> declared.misfit({"x": np.zeros((9, 3), "f4")})
"input 'x': expected FP32[N, 3] with N from 1 to 8, found FP32[9, 3]"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from superbrain.domain.manifest import GraphTensor, Range
from superbrain.wire.datatypes import NUMPY_DTYPES, datatype_of
from superbrain.wire.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["Declared", "GraphTensor", "Range", "TensorFit", "TensorSet", "spell", "spell_array"]

_BYTES_DTYPE = np.dtype(object)


class Declared(Protocol):
    """A declared tensor: of a graph or of an interface."""

    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> Sequence[int | str]: ...


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """The numpy dtype that holds a protocol datatype; BYTES lives in object arrays."""
    return NUMPY_DTYPES.get(datatype, _BYTES_DTYPE)


def spell(datatype: str, shape: Iterable[int | str]) -> str:
    """Write a datatype and shape the way all messages do: `FP32[N, 3, 224, 224]`."""
    return f"{datatype}[{', '.join(map(str, shape))}]"


def spell_array(value: object) -> str:
    """Write what an array is; for anything else the name of its type."""
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    try:
        datatype = datatype_of(value)
    except InvalidArgument:
        datatype = str(value.dtype)
    if value.dtype != numpy_dtype(datatype):  # text of fixed width, or of the other byte order
        datatype = value.dtype.str
    return spell(datatype, value.shape)


class TensorFit:
    """What one array must be."""

    __slots__ = ("_dtype", "_fixed", "_free", "declared", "name")

    def __init__(self, declared: Declared, dynamic: Mapping[str, Range]) -> None:
        self.declared = declared
        self.name = declared.name
        self._dtype = numpy_dtype(declared.datatype)
        self._fixed: tuple[int, ...] | None = None
        self._free: list[tuple[str, int, int | None]] = []
        sizes = tuple(declared.shape)
        if all(isinstance(size, int) and size >= 0 for size in sizes):
            self._fixed = tuple(int(size) for size in sizes)
        else:
            self._free = [_bounds(size, dynamic) for size in sizes]

    def fits(self, array: Array, named: dict[str, int]) -> bool:
        """Check one array; `named` remembers the sizes of named dimensions across arrays."""
        if not isinstance(array, np.ndarray) or array.dtype != self._dtype:
            return False
        shape = array.shape
        if self._fixed is not None:
            return bool(shape == self._fixed)
        if len(shape) != len(self._free):
            return False
        for size, (name, low, high) in zip(shape, self._free, strict=True):
            if size < low or (high is not None and size > high):
                return False
            if name and named.setdefault(name, size) != size:
                return False
        return True


class TensorSet:
    """What a set of named arrays must be.

    Args:
        what: the word for one of them in messages, such as `input` or `request tensor`.
        declared: the tensors, in their order.
        dynamic: ranges of named sizes; a name without one may have any size.
    """

    def __init__(
        self, what: str, declared: Sequence[Declared], dynamic: Mapping[str, Range] | None = None
    ) -> None:
        self._what = what
        self._dynamic = dict(dynamic or {})
        self._fits = tuple(TensorFit(one, self._dynamic) for one in declared)
        self.names = tuple(one.name for one in declared)

    def misfit(self, arrays: Mapping[str, Array]) -> str:
        """Say in one sentence what is wrong with `arrays`; empty when nothing is."""
        if len(arrays) != len(self._fits):
            return self.wrong_names(arrays)
        named: dict[str, int] = {}
        for fit in self._fits:
            array = arrays.get(fit.name)
            if array is None:
                return self.wrong_names(arrays)
            if not fit.fits(array, named):
                return self._wrong_array(fit, array, arrays)
        return ""

    def wrong_names(self, arrays: Mapping[str, object]) -> str:
        """Say which names are missing and which are not expected; empty when none is."""
        missing = [name for name in self.names if arrays.get(name) is None]
        extra = [name for name in arrays if name not in self.names]
        if not missing and not extra:
            return ""
        found = []
        if missing:
            found.append(f"{_quoted(missing)} missing")
        if extra:
            found.append(f"{_quoted(extra)} not expected")
        return f"{self._what}s: expected {_quoted(self.names)}, found {' and '.join(found)}"

    def _wrong_array(self, fit: TensorFit, array: Array, arrays: Mapping[str, Array]) -> str:
        declared = fit.declared
        expected = spell(declared.datatype, declared.shape)
        notes = [self._range_of(size) for size in dict.fromkeys(declared.shape)]
        ranges = f" with {', '.join(notes)}" if (notes := [note for note in notes if note]) else ""
        sentence = f"{self._what} {fit.name!r}: expected {expected}{ranges}"
        sentence += f", found {spell_array(array)}"
        clash = self._clash(arrays)
        return f"{sentence}; {clash}" if clash else sentence

    def _range_of(self, size: int | str) -> str:
        bounds = self._dynamic.get(size) if isinstance(size, str) else None
        return f"{size} from {bounds.min} to {bounds.max}" if bounds else ""

    def _clash(self, arrays: Mapping[str, Array]) -> str:
        """Name the dimension that has one size in one array and another in the next."""
        seen: dict[str, tuple[int, str]] = {}
        for fit in self._fits:
            sizes = getattr(arrays.get(fit.name), "shape", ())
            if len(sizes) != len(fit.declared.shape):
                continue
            for name, size in zip(fit.declared.shape, sizes, strict=True):
                if not isinstance(name, str):
                    continue
                first, where = seen.setdefault(name, (size, fit.name))
                if first != size:
                    return f"{name} is {first} in {where!r} and {size} in {fit.name!r}"
        return ""


def _bounds(size: int | str, dynamic: Mapping[str, Range]) -> tuple[str, int, int | None]:
    """Name, lower and upper bound of one dimension; no upper bound is None."""
    if isinstance(size, int):
        return ("", size, size) if size >= 0 else ("", 0, None)
    bounds = dynamic.get(size)
    return (size, bounds.min, bounds.max) if bounds else (size, 0, None)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
