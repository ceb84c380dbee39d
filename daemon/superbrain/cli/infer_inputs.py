"""Inputs as they are typed, `NAME=VALUE`, made into what the client sends.

What VALUE means depends on the input's datatype, so the model's interface is asked first: for a
BYTES input it names a file, whose bytes are sent; for numbers it is a `.npy` file or JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from superbrain.client.arrays import describe, find_tensor
from superbrain.wire.datatypes import BYTES
from superbrain.wire.errors import InvalidArgument
from superbrain.wire.messages import InterfaceTensor, ModelMetadata


class Given(NamedTuple):
    """One `--input` as typed; `is_text` for `NAME:str=TEXT`."""

    name: str
    value: str
    is_text: bool


def parse_input(text: str) -> Given:
    """Take `NAME=VALUE` or `NAME:str=TEXT` apart.

    Raises:
        ValueError: it is neither.
    """
    left, equals, value = text.partition("=")
    name = left.removesuffix(":str")
    if not equals or not name:
        msg = f"expected NAME=VALUE or NAME:str=TEXT, got {text!r}"
        raise ValueError(msg)
    return Given(name, value, is_text=name != left)


def read_inputs(given: Sequence[Given], interface: ModelMetadata) -> dict[str, Any]:
    """Read what was typed, by the model's interface.

    Raises:
        InvalidArgument: an input is unknown, missing or given twice, or its value cannot be read.
    """
    inputs: dict[str, Any] = {}
    for item in given:
        tensor = find_tensor(item.name, interface)
        if item.name in inputs:
            msg = f"expected input {item.name!r} once, found it twice"
            raise InvalidArgument(msg)
        inputs[item.name] = _read(item, tensor)
    for tensor in interface.inputs:
        if tensor.name not in inputs:
            msg = f"expected input {tensor.name!r} ({describe(tensor)}), found none"
            raise InvalidArgument(msg, mend=f"Add --input {tensor.name}=VALUE")
    return inputs


def _read(item: Given, tensor: InterfaceTensor) -> Any:  # noqa: ANN401 - whatever the client takes
    if item.is_text:
        if tensor.datatype != BYTES:
            msg = f"input {item.name!r}: expected {describe(tensor)}, found text"
            raise InvalidArgument(msg, mend=f"Write --input {item.name}=NUMBER or =FILE.npy")
        return item.value
    if tensor.datatype == BYTES:
        return _read_file(item)
    return _read_npy(item) if item.value.endswith(".npy") else _read_numbers(item, tensor)


def _read_file(item: Given) -> bytes:
    try:
        return Path(item.value).expanduser().read_bytes()
    except OSError as error:
        msg = f"input {item.name!r}: expected a file, found {item.value!r}: {error.strerror}"
        raise InvalidArgument(msg, mend=f"For text write --input {item.name}:str=TEXT") from error


def _read_npy(item: Given) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        array = np.load(Path(item.value).expanduser(), allow_pickle=False)
    except OSError as error:
        msg = f"input {item.name!r}: expected a .npy file, found {item.value!r}: {error.strerror}"
        raise InvalidArgument(msg) from error
    except (ValueError, EOFError) as error:
        msg = f"input {item.name!r}: expected a .npy file of numbers in {item.value!r}: {error}"
        raise InvalidArgument(msg) from error
    return np.asarray(array)


def _read_numbers(item: Given, tensor: InterfaceTensor) -> Any:  # noqa: ANN401
    try:
        return json.loads(item.value)
    except json.JSONDecodeError as error:
        msg = (
            f"input {item.name!r}: expected {describe(tensor)} as a .npy file, a number or a JSON "
            f"list, found {item.value!r}"
        )
        raise InvalidArgument(msg) from error
