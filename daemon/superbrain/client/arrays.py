"""What callers pass as inputs, made into arrays: by what they are, or by the model's interface.

| given | becomes |
|---|---|
| numpy array, or what offers itself as one (torch, PIL) | itself: its dtype is never changed |
| bytes, bytearray, memoryview | one BYTES element, shape [] |
| str | one BYTES element, shape []: its UTF-8 |
| pathlib.Path | one BYTES element, shape []: the file's contents |
| numbers, lists of numbers, lists of str or bytes | an array of the interface's datatype |

A list of numbers has no datatype of its own, so it takes the interface's, if its values survive:
2.5 is no INT64 and 300 no UINT8. A float may be rounded, as 0.1 has to be, a whole number may not:
16777217 is no FP32. An array does have a datatype; the server refuses one that does not
fit, rather than that 8 of its 16 digits are dropped unseen.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from superbrain.wire.datatypes import BYTES, NUMPY_DTYPES, Array
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import InterfaceTensor, ModelMetadata
from superbrain.wire.whole_numbers import integers_of, not_held, spell_integer

_BLOBS = (bytes, str, bytearray, memoryview, Path)
# Kinds of numpy dtypes whose values may become the kinds behind the colon.
_WIDENS = {"b": "b", "i": "iuf", "u": "iuf", "f": "f"}


class Unsendable(InvalidArgument):
    """An array that no datatype of the protocol stands for, or whose elements are not of it."""

    @classmethod
    def of(
        cls, name: str, array: Array, error: Exception, interface: ModelMetadata | None
    ) -> Unsendable:
        """Say which input it is, and if the interface is known what it should be."""
        if interface is not None:
            expected = describe(find_tensor(name, interface))
        else:
            expected = f"an array of {', '.join(sorted(NUMPY_DTYPES))}, or of str or bytes"
        found = f"dtype {array.dtype}"
        if array.dtype.kind in "OSU":
            element = next((one for one in array.reshape(-1).tolist() if not _is_text(one)), "")
            found = f"dtype {array.dtype} with an element that is {element!r:.80}"
        return cls(
            f"input {name!r}: expected {expected}, found {found}",
            mend=error.mend
            if isinstance(error, InvalidArgument) and error.mend
            else "Pass str or bytes, or numbers in an array of their datatype: array.astype(...)",
        )


def check_inputs(inputs: object) -> None:
    """Refuse inputs that have no names.

    Raises:
        InvalidArgument: they are no mapping.
    """
    if type(inputs) is not dict and not isinstance(inputs, Mapping):
        msg = f"expected inputs by name, in a dict, found {type(inputs).__name__}"
        raise InvalidArgument(msg, mend='Say infer(model, {"name of the input": value})')


def needs_interface(values: Iterable[Any]) -> bool:
    """Tell whether a value has no datatype of its own, so that the model's interface must say."""
    for value in values:  # a loop, because this is asked before every request
        if not isinstance(value, (np.ndarray, bytes)) and not _has_type(value):
            return True
    return False


def as_array(name: str, value: object, interface: ModelMetadata | None = None) -> Array:
    """Make the array that is sent for input `name`.

    Raises:
        InvalidArgument: the value fits no datatype or not the interface's; the file cannot be
            read; the interface knows no such input.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, _BLOBS):
        return np.array(_blob(name, value), dtype=object)
    if _has_type(value):
        return np.asarray(value)
    if interface is None:
        msg = f"input {name!r}: expected an array, bytes or str, found {type(value).__name__}"
        raise InvalidArgument(msg, mend="Convert it with numpy.asarray(value, dtype)")
    return _by_interface(value, find_tensor(name, interface))


def find_tensor(name: str, interface: ModelMetadata) -> InterfaceTensor:
    """Look up an input of the interface.

    Raises:
        InvalidArgument: there is none of this name; the message lists those there are.
    """
    tensors: Mapping[str, InterfaceTensor] = {tensor.name: tensor for tensor in interface.inputs}
    if name in tensors:
        return tensors[name]
    known = ", ".join(tensors) or "none"
    msg = f"expected an input of model {interface.name!r} (it has: {known}), found {name!r}"
    near = difflib.get_close_matches(name, tensors, 1, 0.5)
    raise InvalidArgument(msg, mend=f"Did you mean {near[0]!r}?" if near else "")


def describe(tensor: InterfaceTensor) -> str:
    """Write datatype and shape as people read them: `FP32[-1,3,224,224]`."""
    return f"{tensor.datatype}[{','.join(map(str, tensor.shape))}]"


def _has_type(value: object) -> bool:
    if isinstance(value, _BLOBS):
        return True
    offers_itself = hasattr(value, "__array__") or hasattr(value, "__array_interface__")
    return offers_itself and not isinstance(value, np.generic)


def _is_text(element: object) -> bool:
    """Whether it may be an element of a BYTES tensor."""
    if not isinstance(element, str):
        return isinstance(element, (bytes, bytearray, memoryview))
    try:
        element.encode()
    except UnicodeEncodeError:
        return False
    return True


def _blob(name: str, value: bytes | str | bytearray | memoryview | Path) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _utf8(name, value)
    if not isinstance(value, Path):
        return bytes(value)
    try:
        return value.read_bytes()
    except OSError as error:
        msg = f"input {name!r}: expected a file that can be read, found {value}: {error.strerror}"
        raise InvalidArgument(msg) from error


def _by_interface(value: object, wanted: InterfaceTensor) -> Array:
    if wanted.datatype == BYTES:
        return _texts(value, wanted)
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise _misfit(wanted, "rows of different length") from error
    dtype = NUMPY_DTYPES.get(wanted.datatype)
    if dtype is None:
        msg = f"input {wanted.name!r} has datatype {wanted.datatype}, unknown to this client"
        raise InvalidArgument(msg, mend="Update superbrain here")
    if found.dtype.kind in "fO" and dtype.kind in "iuf":
        whole = integers_of(value)  # of which numpy makes floats, or nothing at all
        found = found if whole is None else whole
        fits = whole is not None or dtype.kind in _WIDENS.get(found.dtype.kind, "")
    else:
        fits = dtype.kind in _WIDENS.get(found.dtype.kind, "")
    if found.size and not fits:
        raise _misfit(wanted, f"{type(value).__name__} of {found.dtype}")
    if dtype.kind == "f" and (rounded := not_held(value, dtype)) is not None:
        raise _misfit(wanted, f"the whole number {spell_integer(rounded)}, which it cannot hold")
    if found.size and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least, most = int(found.min()), int(found.max())
        if least < limits.min or most > limits.max:
            raise _misfit(wanted, f"values from {spell_integer(least)} to {spell_integer(most)}")
    try:
        with np.errstate(over="raise"):
            return found.astype(dtype)
    except FloatingPointError as error:
        raise _misfit(wanted, "a value beyond its range") from error


def _texts(value: object, wanted: InterfaceTensor) -> Array:
    array = np.array(value, dtype=object)
    for element in array.reshape(-1).tolist():
        if isinstance(element, str):
            _utf8(wanted.name, element)
        elif isinstance(element, (list, tuple)):
            raise _misfit(wanted, "rows of different length", "Give all rows the same length")
        elif not isinstance(element, (bytes, bytearray, memoryview)):
            found = f"an element that is {type(element).__name__}"
            raise _misfit(wanted, found, "Pass str or bytes")
    return array


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        msg = f"input {name!r}: expected text that is Unicode, found {text!r:.80}: {error.reason}"
        raise InvalidArgument(
            msg, mend='Pass bytes, such as text.encode(errors="replace")'
        ) from error


def _misfit(
    wanted: InterfaceTensor,
    found: str,
    mend: str = "Pass a numpy array to decide the conversion yourself",
) -> InvalidArgument:
    msg = f"input {wanted.name!r}: expected {describe(wanted)}, found {found}"
    return InvalidArgument(msg, mend=mend)
