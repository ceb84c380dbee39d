"""Which other files an ONNX file needs, where its weights lie outside of it, and its metadata.

Read straight from the file's protobuf, with nothing but the few fields that lead to external data,
so that an author needs no further package. `check_external_files` looks before any runtime opens
the graph: runtimes differ in which paths they follow, and a path may lead to any file of the host.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import mmap
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from superbrain.engines.port import EngineError, GraphMismatch

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

# Message -> field number -> message in that field; fields that are not named are skipped.
_MESSAGES = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_METADATA = 14  # of the model
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> list[str]:
    """Give the locations of external data that an ONNX file names, relative to its folder.

    Raises:
        EngineError: the file cannot be read, or is no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return sorted(set(_locations(data, "model", 0, len(data))))
    except (OSError, ValueError, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(f"{path}: expected an ONNX file, found: {error}") from error


def metadata_of(path: Path) -> dict[str, str]:
    """Give an ONNX file's own metadata (`metadata_props`).

    Raises:
        EngineError: the file cannot be read, or is no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            pairs = [
                {inner: data[begin:stop] for inner, begin, stop in _fields(data, start, end)}
                for number, start, end in _fields(data, 0, len(data))
                if number == _METADATA
            ]
        return {pair.get(1, b"").decode(): pair.get(2, b"").decode() for pair in pairs}
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise EngineError(f"{path}: expected an ONNX file, found: {error}") from error


def check_external_files(folder: Path, graph: str, files: Container[str]) -> None:
    """Check that a graph's external data is part of its bundle.

    Args:
        folder: of the bundle.
        graph: path of the graph in it.
        files: paths of all files of the bundle; none of them has `..` in it.

    Raises:
        GraphMismatch: the graph names a file that is not among `files`, below the graph's folder.
        EngineError: the graph cannot be read, or is no ONNX file.
    """
    beside = PurePosixPath(graph).parent
    for location in external_files(folder / graph):
        if str(beside / location) in files:
            continue
        raise GraphMismatch(
            f"{graph}: expected its weights in files of the bundle below {beside}/, "
            f"found that it names {location!r}",
            mend=f"Save the model again with its external data beside it, all of it in {beside}/",
        )


def _locations(data: mmap.mmap, message: str, start: int, end: int) -> Iterator[str]:
    for number, begin, stop in _fields(data, start, end):
        inner = _MESSAGES[message].get(number)
        if inner == "entry":
            yield from _location(data, begin, stop)
        elif inner is not None:
            yield from _locations(data, inner, begin, stop)


def _location(data: mmap.mmap, start: int, end: int) -> Iterator[str]:
    """The value of one key and value pair, if the key is `location`."""
    pair = {number: data[begin:stop] for number, begin, stop in _fields(data, start, end)}
    if pair.get(1) == b"location":
        yield pair.get(2, b"").decode()


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The length-delimited fields of a message: number, and where the content begins and ends."""
    position = start
    while position < end:
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _BYTES:
            size, position = _varint(data, position)
            if size > end - position:
                raise ValueError(f"a field of {size} bytes at {position}, beyond its message")
            yield tag >> 3, position, position + size
            position += size
        elif kind in {_FIXED64, _FIXED32}:
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no protobuf field at {position}")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number without an end at {position}")
