"""An answer as people read it, as programs read it, and as files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from superbrain.bundle.disk import not_written
from superbrain.client import Result
from superbrain.wire.datatypes import BYTES, Array, datatype_of
from superbrain.wire.errors import SuperbrainError

_SHOWN_ELEMENTS = 64
_INDENT = "  "


class NotSaved(SuperbrainError):
    """An output could not be written to a file."""


def answer_text(result: Result) -> str:
    """Write name, version and every output; long arrays are shortened."""
    lines = [f"{result.model_name} {result.model_version}"]
    for name, array in result.items():
        shape = ",".join(map(str, array.shape))
        lines.append(f"{name}  {datatype_of(array)}[{shape}]")
        lines += [_INDENT + line for line in _values_text(array).splitlines()]
    return "\n".join(lines)


def answer_json(result: Result) -> str:
    """Write the answer as the Open Inference Protocol does, data flat and in C order.

    An element of BYTES that is not UTF-8 becomes `{"base64": "…"}`; NaN and infinities are null.
    """
    outputs = [
        {
            "name": name,
            "datatype": datatype_of(array),
            "shape": list(array.shape),
            "data": [_json_element(element) for element in array.reshape(-1).tolist()],
        }
        for name, array in result.items()
    ]
    answer = {
        "model_name": result.model_name,
        "model_version": result.model_version,
        "outputs": outputs,
    }
    return json.dumps(answer, ensure_ascii=False)


def save_outputs(result: Result, folder: Path) -> list[Path]:
    """Write each output into `folder`: numbers as NAME.npy, BYTES as NAME.bin or NAME-0.bin, ….

    Raises:
        NotSaved: the folder or a file cannot be written, or an output's name is no file name.
    """
    saved: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in result.items():
            saved += _save(_stem(folder, name), array)
    except OSError as error:
        msg = f"expected to write outputs into {folder}, found: {error.strerror}"
        _, mend = not_written(folder, error)
        raise NotSaved(msg, mend=mend) from error
    return saved


def _stem(folder: Path, name: str) -> Path:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        msg = f"expected an output whose name can name a file, found {name!r}"
        raise NotSaved(msg, mend="Use --json and take it from there")
    return folder / name


def _save(stem: Path, array: Array) -> list[Path]:
    if datatype_of(array) != BYTES:
        path = stem.with_name(f"{stem.name}.npy")
        np.save(path, array, allow_pickle=False)
        return [path]
    if not array.shape:
        paths = [stem.with_name(f"{stem.name}.bin")]
    else:
        paths = [stem.with_name(f"{stem.name}-{number}.bin") for number in range(array.size)]
    for path, element in zip(paths, array.reshape(-1).tolist(), strict=True):
        path.write_bytes(element)
    return paths


def _values_text(array: Array) -> str:
    if datatype_of(array) != BYTES:
        return np.array2string(array, threshold=_SHOWN_ELEMENTS, separator=", ")
    elements = array.reshape(-1).tolist()
    lines = [_bytes_text(element) for element in elements[:_SHOWN_ELEMENTS]]
    if len(elements) > _SHOWN_ELEMENTS:
        lines.append(f"… and {len(elements) - _SHOWN_ELEMENTS} more")
    return "\n".join(lines)


def _bytes_text(element: bytes) -> str:
    try:
        text = element.decode()
    except UnicodeDecodeError:
        return f"<{len(element)} bytes>"
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)


def _json_element(element: Any) -> Any:  # noqa: ANN401 - a number or bytes to what JSON has
    if isinstance(element, bytes):
        try:
            return element.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(element).decode()}
    if isinstance(element, float) and not np.isfinite(element):
        return None
    return element
