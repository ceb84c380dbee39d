"""Recording golden cases: what the reference engine answers today is what every host must answer.

A case is recorded only if it can be a proof: two runs of it must agree within the tolerances that
the bundle declares, and hold no NaN. Nothing of a case is written before all of it is known;
`golden_writer` says where the files go; of every graph the first run within a case is kept.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from superbrain.bundle.folder import collect_files, read_recipe
from superbrain.bundle.golden_folder import find_cases
from superbrain.bundle.tensors import Array, read_tensor
from superbrain.domain.errors import RecipeError
from superbrain.domain.golden import compare_all
from superbrain.domain.graph_rules import NAME, check_graphs
from superbrain.domain.manifest import FileEntry, Golden, Manifest
from superbrain.domain.rungs import reference_rung
from superbrain.serve.golden_writer import GoldenWriter, Recorded
from superbrain.serve.model import Model
from superbrain.serve.wrapped_engine import WrappedEngine
from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from superbrain.domain.manifest import InterfaceTensor
    from superbrain.engines.port import Engine


class RecordingRefused(SuperbrainError):
    """This case cannot be a golden one."""


class Recorder(WrappedEngine):
    """Stands before an engine and keeps the first inputs and outputs of every case."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.seen: tuple[dict[str, Array], dict[str, Array]] | None = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the engine; copies, because a pipeline may change arrays in place."""
        before = {name: array.copy() for name, array in inputs.items()} if not self.seen else {}
        outputs = self._run(inputs)
        if self.seen is None:
            self.seen = before, {name: array.copy() for name, array in outputs.items()}
        return outputs

    def bound(self) -> None:
        """Give none: nothing must go past `run`."""


def draft_manifest(folder: Path) -> Manifest:
    """The manifest of an author's folder whose golden cases are still to be recorded.

    Raises:
        RecipeError, ManifestError: bundle.toml, a graph or the interface is wrong.
    """
    recipe = read_recipe(folder)
    paths = [path for path in collect_files(folder) if not path.startswith("golden/")]
    manifest = Manifest(
        schema=recipe.schema,
        name=recipe.name,
        version=recipe.version,
        sequence=recipe.sequence,
        created=recipe.created,
        graphs=recipe.graphs,
        interface=recipe.interface,
        golden=Golden([], recipe.golden.tolerances, recipe.golden.graph_tolerances),
        files=[_entry(folder, path) for path in paths],
        serving=recipe.serving,
    )
    check_graphs(manifest, frozenset(paths))
    return manifest


def waiting_cases(folder: Path, manifest: Manifest) -> dict[str, dict[str, Path]]:
    """The request files of every case in the folder, by case and tensor.

    Raises:
        RecipeError: a file under golden/ is in no known place.
    """
    paths = [path for path in collect_files(folder) if path.startswith("golden/")]
    known = {tensor.name for tensor in manifest.interface.inputs}
    cases = {case.name: case.request for case in find_cases(folder, paths)}
    for name, request in cases.items():
        if request.keys() != known:
            raise RecipeError(
                f"golden case {name!r}: expected request files for {', '.join(sorted(known))}, "
                f"found {', '.join(sorted(request)) or 'none'}",
                reason="RECIPE_GOLDEN",
                mend=f"Put them into {folder / 'golden' / name / 'request'}",
            )
    return {
        name: {tensor: folder / path for tensor, path in request.items()}
        for name, request in cases.items()
    }


def record(
    folder: Path, manifest: Manifest, cases: Mapping[str, Mapping[str, Path]], *, graphs: bool
) -> list[Recorded]:
    """Run every case twice on the reference engine and write it down.

    Args:
        folder: the author's folder.
        manifest: of `draft_manifest`.
        cases: request files by case and tensor, inside the folder or elsewhere.
        graphs: also record what goes into and comes out of every graph.

    Raises:
        RecordingRefused: a case does not repeat, holds NaN, or cannot be named or compared.
        SuperbrainError: the bundle does not load, or does not answer a case.
    """
    _check_names(manifest, cases, graphs=graphs)
    recorders: dict[str, Recorder] = {}

    def wrap(name: str, engine: Engine) -> Engine:
        recorders[name] = Recorder(engine)
        return recorders[name]

    with Model.open(folder, manifest, reference_rung(manifest.graphs), wrap) as model:
        found: list[Recorded] = []
        for case, files in cases.items():
            for recorder in recorders.values():
                recorder.seen = None
            request = _read_request(manifest.interface.inputs, files)
            response = _answer_twice(model, manifest, case, request)
            writer = GoldenWriter(folder, case)
            found += writer.keep_request(manifest.interface.inputs, files, request)
            found += writer.write("response", manifest.interface.outputs, response)
            for name, recorder in recorders.items():
                if graphs and recorder.seen is not None:
                    inputs, outputs = recorder.seen
                    found += writer.write(f"graphs/{name}/inputs", recorder.inputs, inputs)
                    found += writer.write(f"graphs/{name}/outputs", recorder.outputs, outputs)
        return found


def _check_names(
    manifest: Manifest, cases: Mapping[str, Mapping[str, Path]], *, graphs: bool
) -> None:
    for case in cases:
        if not NAME.fullmatch(case):
            raise RecordingRefused(
                f"expected a case name of 1-64 of a-z 0-9 . _ - that starts with a letter or "
                f"digit, found {case!r}"
            )
    without = [name for name in manifest.graphs if name not in manifest.golden.graph_tolerances]
    if graphs and without:
        raise RecordingRefused(
            f"expected tolerances for every graph that is recorded, found none for "
            f"{', '.join(without)}",
            mend=f"Add [golden.graph_tolerances.{without[0]}] to bundle.toml, with one per output",
        )


def _answer_twice(
    model: Model, manifest: Manifest, case: str, request: dict[str, Array]
) -> dict[str, Array]:
    try:
        first, second = model.infer(request), model.infer(request)
    except SuperbrainError as error:
        raise RecordingRefused(f"case {case!r}: {error.message}", mend=error.mend) from error
    _refuse_nan(case, first)
    for figures in compare_all(case, "", first, second, manifest.golden.tolerances):
        if not figures.passed:
            raise RecordingRefused(
                f"case {case!r}: expected two runs to agree in {figures.output!r}, "
                f"found that the second one differs: {figures.reason}",
                mend="Fix the seed, or whatever else changes; widen the tolerance if it may differ",
            )
    return first


def _refuse_nan(case: str, response: Mapping[str, Array]) -> None:
    for name, array in response.items():
        if array.dtype.kind != "f" or not (nan := np.isnan(array)).any():
            continue
        place = f" at {np.argwhere(nan)[0].tolist()}" if array.ndim else ""
        raise RecordingRefused(
            f"case {case!r}: expected numbers in {name!r}, a golden answer may not contain NaN, "
            f"found NaN{place} ({nan.sum()} of {nan.size})",
            mend="Choose another input for this case, or replace NaN in postprocess",
        )


def _read_request(
    tensors: Sequence[InterfaceTensor], files: Mapping[str, Path]
) -> dict[str, Array]:
    known = {tensor.name: tensor for tensor in tensors}
    request: dict[str, Array] = {}
    for name, path in files.items():
        if name not in known:
            raise RecordingRefused(
                f"expected inputs of the interface, {', '.join(known)}; found {name!r}"
            )
        try:
            request[name] = read_tensor(str(path), path.read_bytes(), known[name])
        except OSError as error:
            raise RecordingRefused(f"{path}: expected to read it, found: {error}") from error
    return request


def _entry(folder: Path, path: str) -> FileEntry:
    with (folder / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path, (folder / path).stat().st_size, digest)
