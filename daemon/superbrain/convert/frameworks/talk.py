"""What all frameworks share: the shape of a model, how to refuse, and how arrays come and go.

The parent sends one JSON object a line and gets one back. Arrays lie in .npy files, numbered in the
order of inputs or outputs, because a tensor's name may be anything; texts are arrays of `str`.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Refused(Exception):
    """It cannot be done: what was expected, what was found, and what to do."""

    def __init__(self, code: str, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.mend = code, message, mend


class Tensor(NamedTuple):
    """An input: its datatype as on the wire (FP32), its sizes, a name for every open one."""

    name: str
    datatype: str
    shape: list[int | str]


class Order(NamedTuple):
    """What is to be loaded, and what the author said about it.

    `source`: the model's file or folder, a copy; or `module:function` in Python found in `search`.
    `trusted`: loading may run
    code that is in the file.
    """

    source: str
    kind: str
    inputs: list[Tensor]
    weights: str = ""
    search: str = ""
    trusted: bool = False


class Model(Protocol):
    """A loaded model. Outputs are always in the order of `outputs`."""

    inputs: list[Tensor]
    outputs: list[str]
    notes: list[str]

    def answer(self, inputs: dict[str, Array]) -> list[Array]:
        """The framework's own answer."""

    def export(self, path: Path, opset: int, dynamic: dict[str, list[int]]) -> None:
        """Write an ONNX file with the inputs and outputs in order; their names do not matter.

        `dynamic`: bounds of every named size of `inputs`.
        """


NUMPY = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("u2"),
    "UINT32": np.dtype("u4"),
    "UINT64": np.dtype("u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("i2"),
    "INT32": np.dtype("i4"),
    "INT64": np.dtype("i8"),
    "FP16": np.dtype("f2"),
    "FP32": np.dtype("f4"),
    "FP64": np.dtype("f8"),
}


def datatype_of(dtype: Any) -> str:
    """Name a numpy-like type as the wire does; texts are BYTES."""
    found = np.dtype(dtype)
    for name, known in NUMPY.items():
        if found == known:
            return name
    if found.kind in "OSU":
        return "BYTES"
    raise Refused("FRAMEWORK_TYPE", f"expected a tensor that numpy can hold, found {dtype}")


def read_inputs(folder: Path, inputs: list[Tensor]) -> dict[str, Array]:
    """The arrays of one sample."""
    return {one.name: np.load(folder / f"in/{at}.npy") for at, one in enumerate(inputs)}


def write_outputs(folder: Path, arrays: list[Array]) -> None:
    """Keep what the model answered to one sample."""
    target = folder / "original"
    target.mkdir(exist_ok=True)
    for at, array in enumerate(arrays):
        plain = _texts(array) if array.dtype.kind in "OSU" else np.asarray(array)
        np.save(target / f"{at}.npy", plain, allow_pickle=False)


def _texts(array: Array) -> Array:
    items = [one.decode() if isinstance(one, bytes) else str(one) for one in array.reshape(-1)]
    return np.array(items or [""], np.str_)[: len(items)].reshape(array.shape)


def version_of(*packages: str) -> dict[str, str]:
    """The versions of installed packages; what is not there is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def expect_count(what: str, expected: list[str], found: int) -> None:
    """Refuse another number of inputs or outputs than the model has."""
    if len(expected) != found:
        raise Refused(
            "FRAMEWORK_ANSWER",
            f"expected {len(expected)} {what} ({', '.join(expected)}), found {found}",
        )
