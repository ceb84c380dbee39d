"""Golden tensors as files: reading and writing one tensor, exactly as the manifest declares it.

The declared datatype and shape decide the form, so that nothing has to be guessed:

    numbers, BOOL         NAME.npy    numpy's own format; pickled objects are refused
    BYTES with sizes      NAME.json   ["text", {"base64": "AAE="}], or with more than one
                                      dimension {"shape": [2, 1], "data": ["a", "b"]}
    BYTES with shape []   NAME.*      the raw bytes: an image, a sound, a text as it is
"""

from __future__ import annotations

import ast
import base64
import binascii
import io
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import msgspec
import numpy as np
from numpy.lib import format as npy

from superbrain.domain.errors import TensorFileError
from superbrain.domain.strict_json import NotJson, strict_loads
from superbrain.domain.tensor_fit import Declared, spell, spell_array
from superbrain.wire.datatypes import BYTES, NUMPY_DTYPES, datatype_of
from superbrain.wire.errors import InvalidArgument

MAX_NPY_HEADER_BYTES = 10_000
Array = np.ndarray[Any, np.dtype[Any]]


def read_tensor(path: str, data: bytes, tensor: Declared) -> Array:
    """Read a tensor from a golden file's bytes; the array may be read-only.

    Args:
        path: the file's path, for its suffix and for messages.
        data: its content.
        tensor: what it must hold: a tensor of the interface or of a graph.

    Returns:
        Numbers of the declared datatype; BYTES as an object array of `bytes`.

    Raises:
        TensorFileError: another form, datatype or shape.
    """
    if tensor.datatype != BYTES:
        _expect_suffix(path, tensor, ".npy")
        return _parse_npy(path, data, tensor)
    if tensor.shape:
        _expect_suffix(path, tensor, ".json")
        return _parse_texts(path, data, tensor)
    return _objects([data], ())


def write_tensor(folder: Path, tensor: Declared, array: Array) -> Path:
    """Write a tensor into `folder` as NAME and the suffix of its form; give the path.

    Other files of the same tensor are left alone: remove them first.

    Raises:
        TensorFileError: the array is not what `tensor` declares.
        OSError: it cannot be written.
    """
    if _datatype(array) != tensor.datatype or not _shape_fits(tensor, array.shape):
        _refuse(tensor.name, spell(tensor.datatype, tensor.shape), spell_array(array))
    suffix, data = _encode(tensor, array)
    path = folder / f"{tensor.name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _encode(tensor: Declared, array: Array) -> tuple[str, bytes]:
    if tensor.datatype != BYTES:
        file = io.BytesIO()
        numbers = np.asarray(array, dtype=NUMPY_DTYPES[tensor.datatype], order="C")
        npy.write_array(file, numbers, version=(1, 0), allow_pickle=False)
        return ".npy", file.getvalue()
    items = [_to_bytes(item) for item in array.reshape(-1).tolist()]
    if tensor.shape:
        return ".json", _format_texts(items, array.shape)
    return ".txt" if _is_text(items[0]) else ".bin", items[0]


def _datatype(array: Array) -> str:
    try:
        return datatype_of(array)
    except InvalidArgument:
        return ""


def _shape_fits(tensor: Declared, shape: Sequence[int]) -> bool:
    """Compare with the declared shape; -1 and names fit any size."""
    return len(shape) == len(tensor.shape) and all(
        isinstance(declared, str) or declared in {-1, size}
        for declared, size in zip(tensor.shape, shape, strict=True)
    )


# --- numbers ----------------------------------------------------------------------------------


def _parse_npy(path: str, data: bytes, tensor: Declared) -> Array:
    """Read .npy strictly: `numpy.load` would believe a header that promises terabytes.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    try:
        header, content = _split_npy(data)
        shape, fortran = header["shape"], header["fortran_order"]
        sizes_are_plain = all(type(size) is int and size >= 0 for size in shape)
        if not sizes_are_plain or type(shape) is not tuple or type(fortran) is not bool:
            raise ValueError(f"a header of {header}")
        found = f"dtype {header['descr']} of shape {list(shape)}"
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError) as error:
        _refuse(path, "a .npy file", str(error)[:200])
    dtype = NUMPY_DTYPES[tensor.datatype]
    if header["descr"] != dtype.str or not _shape_fits(tensor, shape):
        _refuse(path, f"{tensor.name} as {spell(tensor.datatype, tensor.shape)}", found)
    need = math.prod(shape) * dtype.itemsize
    if len(content) != need:
        _refuse(path, f"{need} bytes for {found}", f"{len(content)}")
    array: Array = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
    return np.ascontiguousarray(array).reshape(shape)


def _split_npy(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Give header and content; ValueError and its like when it is not numpy's format."""
    if data[:6] != b"\x93NUMPY" or data[6:8] not in {b"\1\0", b"\2\0", b"\3\0"}:
        raise ValueError(f"a file that begins with {data[:8]!r}")
    start = 10 if data[6] == 1 else 12
    end = start + int.from_bytes(data[8:start], "little")
    if end > min(len(data), MAX_NPY_HEADER_BYTES):
        raise ValueError(f"a header of {end - start} bytes in {len(data)}")
    header = ast.literal_eval(data[start:end].decode("latin-1").strip())
    if type(header) is not dict or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError(f"a header of {header}")
    return header, data[end:]


# --- strings ----------------------------------------------------------------------------------


class _Blob(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


class _Texts(msgspec.Struct, forbid_unknown_fields=True):
    shape: list[int]
    data: list[str | _Blob]


def _parse_texts(path: str, data: bytes, tensor: Declared) -> Array:
    try:
        found = strict_loads(data)
        if isinstance(found, list):
            found = {"shape": [len(found)], "data": found}
        texts = msgspec.convert(found, _Texts)
        items = [_item_bytes(item) for item in texts.data]
    except (NotJson, msgspec.ValidationError, binascii.Error, ValueError) as error:
        _refuse(path, 'a list of texts and {"base64": "…"}', str(error)[:200])
    if not _shape_fits(tensor, texts.shape):
        _refuse(path, spell(BYTES, tensor.shape), spell(BYTES, texts.shape))
    if min(texts.shape, default=0) < 0 or math.prod(texts.shape) != len(items):
        _refuse(path, f"as many elements as shape {texts.shape} has", f"{len(items)}")
    return _objects(items, texts.shape)


def _format_texts(items: list[bytes], shape: Sequence[int]) -> bytes:
    data = [
        item.decode() if _is_text(item) else {"base64": base64.b64encode(item).decode()}
        for item in items
    ]
    content = data if len(shape) == 1 else {"shape": list(shape), "data": data}
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _item_bytes(item: str | _Blob) -> bytes:
    if isinstance(item, str):
        return item.encode()
    return base64.b64decode(item.base64.encode("ascii"), validate=True)


def _to_bytes(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if not isinstance(item, bytes):
        _refuse("BYTES tensor", "elements of bytes or str", type(item).__name__)
    return item


def _is_text(item: bytes) -> bool:
    try:
        text = item.decode("utf-8")
    except ValueError:
        return False
    return all(character.isprintable() or character in "\n\t" for character in text)


def _objects(items: list[bytes], shape: Sequence[int]) -> Array:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)


def _expect_suffix(path: str, tensor: Declared, suffix: str) -> None:
    found = PurePosixPath(path).suffix
    if found != suffix:
        declared = spell(tensor.datatype, tensor.shape)
        _refuse(path, f"a {suffix} file for {tensor.name}, {declared}", found or "no suffix")


def _refuse(where: str, expected: str, found: str) -> NoReturn:
    raise TensorFileError(
        f"{where}: expected {expected}, found {found}",
        reason="TENSOR_FILE",
        mend="Record it again with `superbrain bundle record-golden`",
    )
