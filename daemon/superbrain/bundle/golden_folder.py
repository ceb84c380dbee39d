"""Golden cases as an author lays them out: found by their paths, checked against the manifest.

    golden/CASE/request/NAME.*                      golden/CASE/graphs/GRAPH/inputs/NAME.npy
    golden/CASE/response/NAME.*                     golden/CASE/graphs/GRAPH/outputs/NAME.npy

NAME is the tensor's name without the last suffix; a slash in it is a folder. A file that fits none
of these patterns is an error: it would look like a proof and be none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from superbrain.bundle.tensors import read_tensor
from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import (
    GoldenCase,
    GraphCase,
    GraphTensor,
    InterfaceTensor,
    Manifest,
    TensorFiles,
)


def find_cases(folder: Path, paths: Iterable[str]) -> list[GoldenCase]:
    """Sort the paths under golden/ into cases.

    Raises:
        RecipeError: a path fits no pattern, or two files hold the same tensor.
    """
    cases: dict[str, GoldenCase] = {}
    for path in paths:
        top, *parts = path.split("/")
        if top != "golden":
            continue
        files, name = _slot(cases, parts) or _refuse_place(folder, path)
        if name in files:
            raise RecipeError(
                f"{folder / path}: expected one file for tensor {name!r}, "
                f"found {files[name]} as well",
                reason="RECIPE_GOLDEN",
            )
        files[name] = path
    return [cases[name] for name in sorted(cases)]


def check_golden_files(folder: Path, manifest: Manifest) -> None:
    """Read every golden file against the tensor that the manifest declares.

    Raises:
        TensorFileError: one does not fit.
        RecipeError: one cannot be read.
    """
    interface = manifest.interface
    for case in manifest.golden.cases:
        _check(folder, case.request, interface.inputs)
        _check(folder, case.response, interface.outputs)
        for name, recorded in case.graphs.items():
            _check(folder, recorded.inputs, manifest.graphs[name].inputs)
            _check(folder, recorded.outputs, manifest.graphs[name].outputs)


def _slot(cases: dict[str, GoldenCase], parts: list[str]) -> tuple[TensorFiles, str] | None:
    """Find the dictionary that a file belongs to, and the tensor's name."""
    match parts:
        case [name, "request", _, *_]:
            return _case(cases, name).request, _tensor_name(parts[2:])
        case [name, "response", _, *_]:
            return _case(cases, name).response, _tensor_name(parts[2:])
        case [name, "graphs", graph, ("inputs" | "outputs") as kind, _, *_]:
            recorded = _case(cases, name).graphs.setdefault(graph, GraphCase({}, {}))
            files = recorded.inputs if kind == "inputs" else recorded.outputs
            return files, _tensor_name(parts[4:])
        case _:
            return None


def _case(cases: dict[str, GoldenCase], name: str) -> GoldenCase:
    return cases.setdefault(name, GoldenCase(name, {}, {}, {}))


def _tensor_name(parts: list[str]) -> str:
    stem, dot, _ = parts[-1].rpartition(".")
    return "/".join([*parts[:-1], stem if dot else parts[-1]])


def _refuse_place(folder: Path, path: str) -> tuple[TensorFiles, str]:
    raise RecipeError(
        f"{folder / path}: expected golden/CASE/request/NAME.*, golden/CASE/response/NAME.* or "
        f"golden/CASE/graphs/GRAPH/inputs/NAME.npy (or outputs), found a file elsewhere",
        reason="RECIPE_GOLDEN",
        mend="Move it; only names that start with README or a dot are left out",
    )


def _check(
    folder: Path, files: TensorFiles, tensors: list[InterfaceTensor] | list[GraphTensor]
) -> None:
    for tensor in tensors:
        path = folder / files[tensor.name]
        try:
            read_tensor(str(path), path.read_bytes(), tensor)
        except OSError as error:
            raise RecipeError(
                f"{path}: expected to read it, found: {error.strerror}",
                reason="RECIPE_FILE_UNREADABLE",
            ) from error
