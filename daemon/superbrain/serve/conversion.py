"""Between what travels and what bundle authors like to write.

Towards the pipeline a BYTES tensor of shape [] is one `bytes`; every other tensor is its array.
From the pipeline come arrays, numbers, lists, `str` and `bytes`, and go out as the array that the
interface declares. Python numbers and lists take the declared datatype if it can hold them; an
array has been given a dtype by its author, so another one than declared is a mistake and said so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from superbrain.domain.tensor_fit import TensorSet, numpy_dtype, spell, spell_array
from superbrain.wire.datatypes import BYTES
from superbrain.wire.errors import Internal
from superbrain.wire.whole_numbers import integers_of, not_held, spell_integer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superbrain.domain.manifest import InterfaceTensor

Array = np.ndarray[Any, np.dtype[Any]]
# Kinds of Python numbers, and the kinds of datatypes that may hold them.
_HOLDS = {"b": "biuf", "i": "iuf", "u": "iuf", "f": "f"}


class RequestConversion:
    """Gives the pipeline its request: `bytes` for every BYTES tensor of shape []."""

    def __init__(self, declared: Sequence[InterfaceTensor]) -> None:
        self._blobs = tuple(
            tensor.name for tensor in declared if tensor.datatype == BYTES and not tensor.shape
        )

    def __call__(self, request: Mapping[str, Array]) -> dict[str, Any]:
        values: dict[str, Any] = dict(request)
        for name in self._blobs:
            values[name] = request[name].item()
        return values


class ResponseConversion:
    """Makes of what a pipeline returned the arrays that the interface declares, in its order."""

    def __init__(self, declared: Sequence[InterfaceTensor]) -> None:
        self._declared = {tensor.name: tensor for tensor in declared}
        self._tensors = TensorSet("response tensor", declared)

    def __call__(self, returned: object) -> dict[str, Array]:
        """Convert one response.

        Raises:
            Internal: it is not what the interface says.
        """
        if not isinstance(returned, dict):
            raise Internal(
                f"expected the pipeline to return a dict of {', '.join(self._declared)}, "
                f"found {type(returned).__name__}"
            )
        if wrong := self._tensors.wrong_names(returned):
            raise Internal(wrong)
        response = {
            name: to_array(tensor, returned[name]) for name, tensor in self._declared.items()
        }
        misfit = self._tensors.misfit(response)
        if misfit:
            raise Internal(misfit)
        return response

    def select(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Take the response out of graph outputs, which need no conversion.

        Raises:
            Internal: they are not what the interface says.
        """
        if tuple(outputs) != self._tensors.names:
            outputs = {name: outputs[name] for name in self._declared if name in outputs}
        misfit = self._tensors.misfit(outputs)
        if misfit:
            raise Internal(misfit)
        return outputs


def to_array(tensor: InterfaceTensor, value: object) -> Array:
    """Convert one value of a response; its shape is checked by the caller.

    Raises:
        Internal: the value cannot be this tensor.
    """
    if tensor.datatype == BYTES:
        return _to_bytes(tensor, value)
    dtype = numpy_dtype(tensor.datatype)
    if isinstance(value, np.ndarray):
        if value.dtype.newbyteorder("=") == dtype.newbyteorder("="):
            return value.astype(dtype, copy=False)
        raise _mismatch(tensor, spell_array(value), f'Return array.astype("{dtype.name}")')
    return _to_numbers(tensor, value, dtype)


def _to_numbers(tensor: InterfaceTensor, value: object, dtype: np.dtype[Any]) -> Array:
    try:
        loose = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise _mismatch(tensor, f"{type(value).__name__} that numpy refuses: {error}") from error
    if not loose.size:
        return loose.astype(dtype) if loose.dtype.kind in "biuf" else np.empty(loose.shape, dtype)
    whole = None
    if loose.dtype.kind in "fO" and dtype.kind in "iuf":
        whole = integers_of(value)  # of which numpy makes floats, or nothing at all
    if whole is None and dtype.kind not in _HOLDS.get(loose.dtype.kind, ""):
        raise _mismatch(tensor, _brief(value))
    if dtype.kind == "f" and (rounded := not_held(value, dtype)) is not None:
        raise _mismatch(tensor, f"{spell_integer(rounded)}, which {dtype} cannot hold")
    if whole is not None:
        return _from_integers(tensor, whole, dtype)
    with np.errstate(over="ignore"):
        array = loose.astype(dtype)
    changed = np.isinf(array) & np.isfinite(loose) if dtype.kind == "f" else array != loose
    if changed.any():
        raise _mismatch(tensor, f"{loose[changed].reshape(-1)[0]!s}, which {dtype} cannot hold")
    return array


def _from_integers(tensor: InterfaceTensor, whole: Array, dtype: np.dtype[Any]) -> Array:
    try:
        return whole.astype(dtype)
    except OverflowError as error:
        limits = np.iinfo(dtype)
        beyond = next(one for one in whole.reshape(-1) if not limits.min <= one <= limits.max)
        raise _mismatch(tensor, f"{spell_integer(beyond)}, which {dtype} cannot hold") from error


def _to_bytes(tensor: InterfaceTensor, value: object) -> Array:
    elements = np.empty((), dtype=object)
    if isinstance(value, (bytes, bytearray, memoryview, str)):
        elements[()] = value
    elif isinstance(value, np.ndarray):
        elements = value.astype(object)
    elif isinstance(value, (list, tuple)):
        elements = _nested(tensor, value)
    else:
        raise _mismatch(tensor, _brief(value), "Return str or bytes (json.dumps makes str)")
    flat = np.empty(elements.size, dtype=object)
    flat[:] = [_one_bytes(tensor, element) for element in elements.reshape(-1).tolist()]
    return flat.reshape(elements.shape)


def _nested(tensor: InterfaceTensor, value: Sequence[object]) -> Array:
    """Lists of lists as an object array; numpy alone would cut trailing zero bytes off."""
    try:
        shape = _list_shape(value)
        array = np.empty(shape, dtype=object)
        array.reshape(-1)[:] = list(_leaves(value))
    except ValueError as error:
        raise _mismatch(tensor, "lists of different lengths") from error
    return array


def _list_shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        return ()
    shapes = {_list_shape(element) for element in value}
    if len(shapes) > 1:
        raise ValueError("ragged")
    return (len(value), *(shapes.pop() if shapes else ()))


def _leaves(value: object) -> list[object]:
    if not isinstance(value, (list, tuple)):
        return [value]
    return [leaf for element in value for leaf in _leaves(element)]


def _one_bytes(tensor: InterfaceTensor, element: object) -> bytes:
    if isinstance(element, (bytes, bytearray, memoryview)):
        return bytes(element)
    if not isinstance(element, str):
        raise _mismatch(tensor, f"an element that is {_brief(element)}")
    try:
        return element.encode()
    except UnicodeEncodeError as error:
        raise _mismatch(tensor, f"text that is no UTF-8: {error}") from error


def _brief(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"


def _mismatch(tensor: InterfaceTensor, found: str, mend: str = "") -> Internal:
    expected = spell(tensor.datatype, tensor.shape)
    return Internal(
        f"response tensor {tensor.name!r}: expected {expected}, found {found}", mend=mend
    )
