"""Small bundles as the store holds them: a folder of files and the manifest that lists them.

>>> manifest = write_model(folder, graphs={"double": DOUBLE}, request=[...], response=[...])
>>> with Model.open(folder, manifest, "onnxruntime:cpu") as model: ...
"""

from __future__ import annotations

import datetime as dt
import hashlib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from superbrain.domain.manifest import (
    Exact,
    FileEntry,
    Golden,
    GoldenCase,
    Interface,
    InterfaceTensor,
    Manifest,
    Tolerance,
)
from tests.support.graphs import TinyGraph, declare, save_graph

CREATED = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
RUNG = "onnxruntime:cpu"


def border(name: str, datatype: str, *shape: int) -> InterfaceTensor:
    """One tensor of an interface; -1 is any size."""
    return InterfaceTensor(name, datatype, list(shape))


def write_model(
    folder: Path,
    *,
    graphs: Mapping[str, TinyGraph],
    inputs: Sequence[InterfaceTensor],
    outputs: Sequence[InterfaceTensor],
    files: Mapping[str, str | bytes] | None = None,
    cases: Sequence[GoldenCase] = (),
    tolerances: Mapping[str, Tolerance] | None = None,
    graph_tolerances: Mapping[str, dict[str, Tolerance]] | None = None,
) -> Manifest:
    """Write a bundle's files below `folder` and give the manifest that lists them.

    Args:
        folder: where; it is made when absent.
        graphs: name to graph; saved as `graphs/NAME.onnx`.
        inputs: request tensors.
        outputs: response tensors.
        files: further files by path; text is dedented.
        cases: golden cases, whose files are among `files`.
        tolerances: by response tensor; exact when left out.
        graph_tolerances: by graph and output.
    """
    for name, graph in graphs.items():
        save_graph(folder / f"graphs/{name}.onnx", graph)
    for path, content in (files or {}).items():
        write_file(folder / path, content)
    listed = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return Manifest(
        schema=1,
        name="tiny",
        version="1.0.0",
        sequence=1,
        created=CREATED,
        graphs={name: declare(graph, f"graphs/{name}.onnx") for name, graph in graphs.items()},
        interface=Interface(list(inputs), list(outputs)),
        golden=Golden(
            list(cases),
            dict(tolerances or {tensor.name: Exact() for tensor in outputs}),
            dict(graph_tolerances or {}),
        ),
        files=[entry_of(folder, path) for path in listed],
    )


def write_file(path: Path, content: str | bytes) -> None:
    """Write one file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = textwrap.dedent(content).encode() if isinstance(content, str) else content
    path.write_bytes(data)


def entry_of(folder: Path, path: Path) -> FileEntry:
    """List one file as it is."""
    data = path.read_bytes()
    return FileEntry(
        path.relative_to(folder).as_posix(), len(data), hashlib.sha256(data).hexdigest()
    )
