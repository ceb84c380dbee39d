"""Writing what was converted as a bundle folder: graph, golden cases, a bundle.toml that says why.

The folder is made beside its place, proven there on the reference rung, and moved in one step: what
does not prove is never there.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from superbrain.bundle.folder import RECIPE_NAME, read_folder
from superbrain.bundle.tensors import write_tensor
from superbrain.cli.recipe_text import Known, recipe_text
from superbrain.convert.errors import ParityFailed
from superbrain.convert.job import Converted, Wish
from superbrain.convert.parity import OutputParity
from superbrain.domain.manifest import GraphTensor
from superbrain.domain.tensor_fit import spell
from superbrain.serve.trial import try_rung

RUNG = "onnxruntime:cpu"


class ConvertResult(msgspec.Struct, frozen=True):
    """What `convert --json` prints."""

    folder: str
    name: str
    original: str
    framework: str
    rung: str
    inputs: list[str]
    outputs: list[str]
    cases: list[str]
    figures: list[OutputParity]
    versions: dict[str, str]
    notes: list[str]


def write_folder(folder: Path, name: str, wish: Wish, found: Converted) -> ConvertResult:
    """Write the bundle folder.

    Raises:
        ParityFailed: this machine does not prove what was converted.
        RecipeError, ManifestError: what was converted cannot be a bundle.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        made = Path(scratch) / "folder"
        _fill(made, name, wish, found)
        manifest = read_folder(made)
        trial = try_rung(made, manifest, RUNG)
        if not trial.passed:
            raise ParityFailed(
                f"expected this machine to prove what was converted, found: {trial.reason}",
                code="PARITY_PROOF",
                mend=trial.mend,
            )
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return ConvertResult(
        folder=str(folder),
        name=name,
        original=wish.source.given,
        framework=wish.source.framework,
        rung=RUNG,
        inputs=[_spelled(one) for one in found.inputs],
        outputs=[_spelled(one) for one in found.outputs],
        cases=[case.name for case in found.cases],
        figures=found.figures,
        versions=found.versions,
        notes=found.notes,
    )


def _fill(folder: Path, name: str, wish: Wish, found: Converted) -> None:
    graphs = folder / "graphs"
    graphs.mkdir(parents=True)
    for path in found.graph.parent.iterdir():
        shutil.copyfile(path, graphs / path.name)
    for case in found.cases:
        for part, tensors, arrays in (
            ("request", found.inputs, case.request),
            ("response", found.outputs, case.response),
        ):
            place = folder / "golden" / case.name / part
            place.mkdir(parents=True)
            for tensor in tensors:
                write_tensor(place, tensor, arrays[tensor.name])
    text = recipe_text(
        name=name,
        created=dt.datetime.now(dt.UTC),
        graph="main",
        path=f"graphs/{found.graph.name}",
        inputs=found.inputs,
        outputs=found.outputs,
        known=_known(wish, found),
    )
    (folder / RECIPE_NAME).write_text(text, encoding="utf-8")


def _known(wish: Wish, found: Converted) -> Known:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found.versions.items()))
    original = Path(wish.source.given).name
    given = "" if wish.graph is None else f", compared with {wish.graph.name}"
    return Known(
        description=f"{original}, converted from {wish.source.framework}",
        origin=[
            "",
            f"Made by `superbrain convert` of {original} ({wish.source.framework}){given}.",
            f"With {versions}.",
            "The golden answers are the original's own, not the graph's.",
        ],
        dynamic=found.dynamic,
        tolerances=found.tolerances,
        reasons=list(_reasons(found)),
    )


def _reasons(found: Converted) -> Iterator[str]:
    yield ""
    yield "Chosen from what was measured between original and graph: rtol is ten times the largest"
    yield "error as a share of the values' size (at least 1e-5 for other processors), atol the same"
    yield "share of their root mean square. The golden cases took no part in it, and were met:"
    for one in found.figures:
        yield (
            f"  {one.output}: {one.samples} samples within {one.share:.2g} "
            f"(largest error {one.max_abs_error:.2g}), {len(found.cases)} cases within "
            f"{one.held_share:.2g}; values of about {one.scale:.2g}"
        )


def _spelled(tensor: GraphTensor) -> str:
    return f"{tensor.name} {spell(tensor.datatype, tensor.shape)}"
