"""Tensors that are like those seen before: the same names, datatypes and shapes, in the same order.

Nearly all requests of a program are alike, and so are their answers. A `Packing` is made of the
first and then takes one step where every tensor would take several. It never judges: what is not
alike is None, and the caller goes the long way, which knows what is wrong.

>>> packing = packing_of({"x": np.zeros(2, "f4")})
>>> packing.unpack(packing.pack({"x": np.array([1, 2], "f4")}))
{'x': array([1., 2.], dtype=float32)}
>>> packing.pack({"x": np.zeros(3, "f4")}) is None
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from superbrain.transport import compiled
from superbrain.wire.datatypes import NUMPY_DTYPES, Array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superbrain.wire.datatypes import TensorLayout

    Layout = tuple[str, np.dtype[Any], tuple[int, ...], str, int]

_MOST_DIMENSIONS: Final = 16
_DTYPES: Final = frozenset(NUMPY_DTYPES.values())


class Packing(Protocol):
    """Names, datatypes and shapes of some tensors of numbers."""

    def pack(self, arrays: Mapping[str, Array]) -> list[memoryview] | None:
        """Give the bytes of each array, where they lie; None when they are not alike."""

    def unpack(self, tensors: list[memoryview]) -> dict[str, Array] | None:
        """Give the array that lies on each tensor's bytes; None when they are not as many."""


class PythonPacking:
    """The twin of the compiled one."""

    def __init__(self, array_type: type[Array], layouts: tuple[Layout, ...]) -> None:
        self._array_type = array_type
        self._layouts = layouts

    def pack(self, arrays: Mapping[str, Array]) -> list[memoryview] | None:
        if len(arrays) != len(self._layouts):
            return None
        tensors: list[memoryview] = []
        for (name, dtype, shape, _, _), found in zip(self._layouts, arrays, strict=True):
            array = arrays[found]
            if name != found or type(array) is not self._array_type:
                return None
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                return None
            tensors.append(array.data.cast("B"))
        return tensors

    def unpack(self, tensors: list[memoryview]) -> dict[str, Array] | None:
        if len(tensors) != len(self._layouts):
            return None
        arrays: dict[str, Array] = {}
        for (name, dtype, shape, _, size), data in zip(self._layouts, tensors, strict=True):
            if len(data) != size:
                return None
            arrays[name] = np.ndarray(shape, dtype, data)
        return arrays


def packing_of(arrays: Mapping[str, Array]) -> Packing | None:
    """Give the packing for arrays like these; None when there is none for such."""
    return _make([(name, array.dtype, array.shape) for name, array in arrays.items()])


def packing_for(layouts: Sequence[TensorLayout]) -> Packing | None:
    """Give the packing for tensors of these layouts; None when there is none for such.

    Truth values have none: each byte of theirs has to be looked at.
    """
    if any(one.datatype == "BOOL" for one in layouts):
        return None
    return _make([(one.name, NUMPY_DTYPES.get(one.datatype), one.shape) for one in layouts])


def _make(tensors: Sequence[tuple[str, np.dtype[Any] | None, tuple[int, ...]]]) -> Packing | None:
    layouts: list[Layout] = []
    for name, dtype, shape in tensors:
        if dtype not in _DTYPES or len(shape) > _MOST_DIMENSIONS:
            return None
        assert dtype is not None  # noqa: S101 - it is one of those
        size = dtype.itemsize
        for one in shape:
            size *= one
        if not 0 < size < 1 << 62:
            return None
        layouts.append((name, dtype, shape, np.empty((), dtype).data.format, size))
    module = compiled.loop()
    make = PythonPacking if module is None else module.Packing
    return make(np.ndarray, tuple(layouts))
