"""The content of a tensor on one line: as much as fits, and never a number cut in two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from superbrain.cli.tensor_text import first_values

Array = np.ndarray[Any, np.dtype[Any]]


def texts(*values: bytes) -> Array:
    return np.array(values, object)


SPELLED: dict[str, tuple[Array, str]] = {
    "a label": (np.array(b"270", object), "'270'"),
    "a file": (np.array(b"\xff" * 47_679, object), "47,679 bytes"),
    "control characters": (np.array(b"\x1b[2J", object), r"'\x1b[2J'"),
    "a number": (np.array(0.92431234, "f4"), "0.924312"),
    "integers": (np.array([[1, -2], [3, 4]], "i8"), "1, -2, 3, 4"),
    "booleans": (np.array([True, False]), "True, False"),
    "texts": (texts(b"one", b"two"), "'one', 'two'"),
    "nothing": (np.zeros((0, 4), "f4"), "empty"),
    "no texts": (texts(), "empty"),
    "many numbers": (np.arange(1000) / 8, "0, 0.125, 0.25, 0.375, 0.5, …"),
    "many texts": (texts(*[b"twelve chars"] * 9), "'twelve chars', …"),
    "a long text": (np.array(b"a" * 99, object), "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaa…"),
    "long texts": (texts(b"a" * 99, b"b"), "'aaaaaaaaaaaaaaaaaaaaaaaaaa…, …"),
}


@pytest.mark.parametrize("name", SPELLED)
def test_a_tensor_is_told_on_one_short_line(name: str) -> None:
    array, line = SPELLED[name]
    assert first_values(array, width=31) == line
