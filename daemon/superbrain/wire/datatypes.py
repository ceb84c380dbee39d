"""Tensor datatypes on the wire: names of the Open Inference Protocol v2, bytes, numpy arrays.

Numbers travel little-endian in C order. A BYTES tensor is, element after element, a four-byte
little-endian length and that many bytes (the protocol's binary extension); in numpy it is an
object array whose elements are `bytes`.
Source: https://github.com/kserve/open-inference-protocol and its binary tensor data extension.

>>> decode_tensor("x", "FP32", (2,), encode_tensor(np.array([1, 2], "f4"))).tolist()
[1.0, 2.0]
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from superbrain.wire.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

BYTES = "BYTES"
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES: frozenset[str] = frozenset({*NUMPY_DTYPES, BYTES})
_NAMES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in NUMPY_DTYPES.items()}
_LENGTH = struct.Struct("<I")

Array = np.ndarray[Any, np.dtype[Any]]


def datatype_of(array: Array) -> str:
    """Name the datatype of a numpy array: its protocol name, BYTES for object, `S` and `U` arrays.

    Raises:
        InvalidArgument: numpy holds it but the protocol has no name for it (complex, datetime).
    """
    name = _NAMES.get(array.dtype)
    if name is not None:
        return name
    if array.dtype.kind in "OSU":
        return BYTES
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is not None:
        return name
    msg = f"expected an array of one of {', '.join(sorted(DATATYPES))}, found dtype {array.dtype}"
    raise InvalidArgument(msg, mend="Convert it with array.astype(...)")


def encode_tensor(array: Array) -> memoryview | bytes:
    """Give the wire bytes of one tensor; contiguous little-endian numbers are not copied."""
    if type(array) is np.ndarray and array.dtype in _NAMES and array.size:
        try:
            return array.data.cast("B")  # the usual case
        except TypeError:  # it is not contiguous
            pass
    if array.dtype.kind in "OSU":
        return _encode_bytes(array)
    if not array.flags.c_contiguous or array.dtype not in _NAMES:
        array = np.ascontiguousarray(array, NUMPY_DTYPES[datatype_of(array)])
    return np.asarray(array).data.cast("B") if array.size else b""  # an empty view cannot be cast


class TensorLayout:
    """How the bytes of one tensor become an array: checked once, for all tensors declared alike.

    Args:
        name: the tensor's name, for the error messages.
        datatype: one of `DATATYPES`.
        shape: sizes, each zero or more.

    Raises:
        InvalidArgument: unknown datatype, or a negative size.
    """

    __slots__ = ("_dtype", "_size_bytes", "datatype", "name", "shape")

    def __init__(self, name: str, datatype: str, shape: Sequence[int]) -> None:
        if shape and min(shape) < 0:
            msg = f"tensor {name!r}: expected sizes of zero or more, found shape {list(shape)}"
            raise InvalidArgument(msg)
        dtype = NUMPY_DTYPES.get(datatype)
        if dtype is None and datatype != BYTES:
            msg = f"tensor {name!r}: expected a datatype of {sorted(DATATYPES)}, found {datatype!r}"
            raise InvalidArgument(msg)
        self.name = name
        self.datatype = datatype
        self.shape = tuple(shape)
        self._dtype = dtype
        self._size_bytes = math.prod(shape) * dtype.itemsize if dtype is not None else 0

    def read(self, data: memoryview | bytes) -> Array:
        """Give the array that `data` holds; numbers are a view on `data`, not a copy.

        Raises:
            InvalidArgument: as many bytes as do not fit the shape, or a truth value that is none.
        """
        if self._dtype is None:
            return _decode_bytes(self.name, self.shape, data)
        if len(data) != self._size_bytes:
            msg = (
                f"tensor {self.name!r}: expected {self._size_bytes} bytes for "
                f"{self.datatype}{list(self.shape)}, found {len(data)}"
            )
            raise InvalidArgument(msg)
        try:
            array = np.ndarray(self.shape, self._dtype, data)
        except (ValueError, OverflowError) as error:
            raise _impossible(self.name, self.shape) from error
        if self.datatype == "BOOL" and array.size and (most := array.view(np.uint8).max()) > 1:
            msg = f"tensor {self.name!r}: expected BOOL as bytes of 0 and 1, found one of {most}"
            raise InvalidArgument(msg)
        return array


def decode_tensor(
    name: str, datatype: str, shape: Sequence[int], data: memoryview | bytes
) -> Array:
    """Give the numpy array that `data` holds, as `TensorLayout.read` does.

    Raises:
        InvalidArgument: as `TensorLayout` and its `read`.
    """
    return TensorLayout(name, datatype, shape).read(data)


def _encode_bytes(array: Array) -> bytes:
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        if isinstance(element, str):
            raw = element.encode()
        elif isinstance(element, (bytes, bytearray, memoryview)):
            raw = bytes(element)
        else:
            msg = f"expected bytes or str in a BYTES tensor, found {type(element).__name__}"
            raise InvalidArgument(msg)
        parts.append(_LENGTH.pack(len(raw)))
        parts.append(raw)
    return b"".join(parts)


def _decode_bytes(name: str, shape: Sequence[int], data: memoryview | bytes) -> Array:
    count = math.prod(shape)
    size = len(data)
    elements: list[bytes] = []
    offset = 0
    while offset < size and len(elements) < count:
        if offset + 4 > size:
            break
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += 4
        if length > size - offset:
            msg = (
                f"tensor {name!r}: element {len(elements)} announces {length} bytes, "
                f"{size - offset} are left"
            )
            raise InvalidArgument(msg)
        elements.append(bytes(data[offset : offset + length]))
        offset += length
    if len(elements) != count or offset != size:
        msg = (
            f"tensor {name!r}: expected {count} length-prefixed elements in {size} bytes, "
            f"found {len(elements)} that end at byte {offset}"
        )
        raise InvalidArgument(
            msg, mend="Each BYTES element is a 4-byte little-endian length and the bytes"
        )
    array = np.empty(count, dtype=object)
    array[:] = elements
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise _impossible(name, shape) from error


def _impossible(name: str, shape: Sequence[int]) -> InvalidArgument:
    """Refuse too many sizes, or absurd ones around a zero."""
    return InvalidArgument(
        f"tensor {name!r}: expected a shape that an array can have, found {list(shape)[:70]}"
    )
