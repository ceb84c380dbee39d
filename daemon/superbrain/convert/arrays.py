"""Arrays between processes: .npy files without pickles; texts are `str` there and `bytes` here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def read_array(path: Path) -> Array:
    """Read one array; texts become an object array of `bytes`."""
    array: Array = np.load(path, allow_pickle=False)
    if array.dtype.kind != "U":
        return array
    return _objects((text.encode() for text in array.reshape(-1).tolist()), array.shape)


def write_array(path: Path, array: Array) -> None:
    """Write one array; an object array of `bytes` becomes texts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.dtype.kind in "OS":
        texts = [text if isinstance(text, str) else text.decode() for text in array.reshape(-1)]
        array = np.array(texts or [""], dtype=np.str_)[: len(texts)].reshape(array.shape)
    np.save(path, array, allow_pickle=False)


def _objects(items: Iterable[bytes], shape: tuple[int, ...]) -> Array:
    listed = list(items)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array.reshape(shape)
