"""Which other files an ONNX file needs, where its weights lie outside of it, and its metadata.

Read straight from the file's protobuf, with nothing but the few fields that lead to external data
(and to the nodes, for what templates want to know), so that an author needs no further package.
`check_external_files` looks before any runtime opens the graph: runtimes differ in which paths they
follow, and a path may lead to any file of the host.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from superbrain.engines.port import EngineError, GraphMismatch

if TYPE_CHECKING:
    from collections.abc import Container
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
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_DIMENSIONS, _NAME = 1, 8  # of a tensor
_FORM_ONLY = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_TAG = (1 << 32) - 1


def external_files(path: Path) -> list[str]:
    """Give the locations of external data that an ONNX file names, relative to its folder.

    Raises:
        EngineError: the file cannot be read, or is no ONNX file.
    """
    with _opened(path) as data:
        return sorted(set(_locations(data, "model", 0, len(data))))


def metadata_of(path: Path) -> dict[str, str]:
    """Give an ONNX file's own metadata (`metadata_props`).

    Raises:
        EngineError: the file cannot be read, or is no ONNX file.
    """
    with _opened(path) as data:
        pairs = [
            {inner: data[begin:stop] for inner, begin, stop in _fields(data, start, end)}
            for number, start, end in _fields(data, 0, len(data))
            if number == _METADATA
        ]
        return {pair.get(1, b"").decode(): pair.get(2, b"").decode() for pair in pairs}


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


def last_operator(path: Path, output: str) -> str:
    """Give the operator that makes an output, such as "Softmax"; "" if no node of the graph does.

    Operators that only change the form of a tensor are passed over.

    Raises:
        EngineError: the file cannot be read, or is no ONNX file.
    """
    makers = {made: node for node in _nodes(path) for made in node.outputs}
    operator = ""
    for _ in range(len(makers)):  # a graph has no cycle, a broken file might
        node = makers.get(output, _Node("", [], []))
        operator = node.operator
        if operator not in _FORM_ONLY or not node.inputs:
            break
        output = node.inputs[0]
    return operator


def rows_looked_up(path: Path, indices: str) -> int:
    """Tell how many rows the table has that an input of indices is for; 0 if none is found.

    Raises:
        EngineError: the file cannot be read, or is no ONNX file.
    """
    looked = [node.inputs for node in _nodes(path) if node.operator == "Gather"]
    tables = [inputs[0] for inputs in looked if inputs[1:2] == [indices]]
    with _opened(path) as data:
        for start, end in _parts(data, "tensor"):
            names = [data[b:s].decode() for n, b, s in _fields(data, start, end) if n == _NAME]
            if names and names[0] in tables:
                return next(_numbers(data, start, end, _DIMENSIONS), 0)
    return 0


class _Node(NamedTuple):
    operator: str
    inputs: list[str]
    outputs: list[str]


def _nodes(path: Path) -> list[_Node]:
    """The nodes of the graph, without those of graphs within it."""
    with _opened(path) as data:
        return [_node(data, start, end) for start, end in _parts(data, "node")]


def _node(data: mmap.mmap, start: int, end: int) -> _Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_OPERATOR: []}
    for number, begin, stop in _fields(data, start, end):
        if number in texts:
            texts[number].append(data[begin:stop].decode())
    return _Node("".join(texts[_NODE_OPERATOR]), texts[_NODE_INPUT], texts[_NODE_OUTPUT])


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file; whatever is wrong with them is an EngineError."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except (OSError, ValueError, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(f"{path}: expected an ONNX file, found: {error}") from error


def _parts(data: mmap.mmap, kind: str) -> Iterator[tuple[int, int]]:
    """Where the nodes or the tensors of the graph begin and end."""
    for number, start, end in _fields(data, 0, len(data)):
        if _MESSAGES["model"].get(number) == "graph":
            for part, begin, stop in _fields(data, start, end):
                if _MESSAGES["graph"].get(part) == kind:
                    yield begin, stop


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
    for number, kind, begin, stop in _all_fields(data, start, end):
        if kind == _BYTES:
            yield number, begin, stop


def _numbers(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[int]:
    """The whole numbers in one field of a message, packed or one by one."""
    for number, kind, begin, stop in _all_fields(data, start, end):
        while number == wanted and kind in {_VARINT, _BYTES} and begin < stop:
            value, begin = _varint(data, begin)  # noqa: PLW2901 - on to the next one of a pack
            yield value


def _all_fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of a message: number, kind, and where the content begins and ends."""
    position = start
    while position < end:
        tag, begin = _varint(data, position)
        if tag > _MOST_TAG:  # libraries read its lower half alone, and so another field
            raise ValueError(f"no protobuf field at {position}")
        kind = tag & 7
        if kind == _VARINT:
            _, position = _varint(data, begin)
        elif kind == _BYTES:
            size, begin = _varint(data, begin)
            if size > end - begin:
                raise ValueError(f"a field of {size} bytes at {begin}, beyond its message")
            position = begin + size
        elif kind in {_FIXED64, _FIXED32}:
            position = begin + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"no protobuf field at {begin}")
        yield tag >> 3, kind, begin, position


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number without an end at {position}")
