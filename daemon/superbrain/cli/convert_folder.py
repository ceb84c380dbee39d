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

from superbrain.bundle.disk import storing
from superbrain.bundle.folder import RECIPE_NAME, read_folder
from superbrain.bundle.tensors import write_tensor
from superbrain.cli.recipe_text import Known, recipe_text
from superbrain.convert.errors import ParityFailed
from superbrain.convert.job import Converted, Wish
from superbrain.convert.parity import OutputParity
from superbrain.convert.precision import Variant
from superbrain.domain.manifest import GraphTensor
from superbrain.domain.tensor_fit import spell
from superbrain.serve.trial import try_rung


class PrecisionResult(msgspec.Struct, frozen=True):
    """What became of one precision: its rung and file, or why it is left out; its figures.

    `converter`: what made the file; `note`: why it was not AutoCast, though that is installed.
    """

    precision: str
    kept: bool
    rung: str
    size_bytes: int
    median_ms: float
    within: float
    figures: list[OutputParity]
    reason: str
    converter: str
    note: str


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
    ladder: list[str]
    precisions: list[PrecisionResult]


def write_folder(folder: Path, name: str, wish: Wish, found: Converted) -> ConvertResult:
    """Write the bundle folder.

    Raises:
        ParityFailed: this machine does not prove what was converted.
        RecipeError, ManifestError: what was converted cannot be a bundle.
        StoreError: the folder cannot be written; nothing of it is left.
    """
    with storing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent)
    with beside as scratch:
        made = Path(scratch) / "folder"
        with storing(folder):
            _fill(made, name, wish, found)
        _prove(made, found)
        found, times = _prove_variants(made, name, wish, found)
        with storing(folder):
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    return ConvertResult(
        folder=str(folder),
        name=name,
        original=wish.source.given,
        framework=wish.source.framework,
        rung=found.rung,
        inputs=[_spelled(one) for one in found.inputs],
        outputs=[_spelled(one) for one in found.outputs],
        cases=[case.name for case in found.cases],
        figures=found.figures,
        versions=found.versions,
        notes=found.notes,
        ladder=_ladder(found),
        precisions=[_precision(one, times) for one in found.variants],
    )


def _prove(folder: Path, found: Converted) -> None:
    """Prove the graph as it is."""
    trial = try_rung(folder, read_folder(folder), found.rung, packages=found.packages)
    if not trial.passed:
        raise ParityFailed(
            f"expected this machine to prove what was converted, found: {trial.reason}",
            code="PARITY_PROOF",
            mend=trial.mend,
        )


def _prove_variants(
    folder: Path, name: str, wish: Wish, found: Converted
) -> tuple[Converted, dict[str, float]]:
    """Prove and time every variant; what does not prove is taken out again."""
    times: dict[str, float] = {}
    variants = []
    for one in found.variants:
        if one.path is not None:
            trial = try_rung(folder, read_folder(folder), one.rung, timed=True)
            if trial.passed:
                times[one.precision] = trial.median_ms
            else:
                one = one.left_out(trial.reason)  # noqa: PLW2901 - the same, judged
        variants.append(one)
    if variants != found.variants:
        found = msgspec.structs.replace(found, variants=variants)
        with storing(folder):
            shutil.rmtree(folder)
            _fill(folder, name, wish, found)
    return found, times


def _precision(one: Variant, times: dict[str, float]) -> PrecisionResult:
    return PrecisionResult(
        one.precision,
        one.path is not None,
        one.rung,
        one.size_bytes,
        times.get(one.precision, 0.0),
        one.within,
        one.figures,
        one.reason,
        one.made.converter,
        one.made.note,
    )


def _kept(found: Converted) -> dict[str, Variant]:
    return {one.precision: one for one in found.variants if one.path is not None}


def _ladder(found: Converted) -> list[str]:
    return [*(one.rung for one in _kept(found).values()), found.rung]


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
    original, kept = Path(wish.source.given).name, _kept(found)
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
        ladder=_ladder(found),
        precisions={name: f"graphs/{one.path.name}" for name, one in kept.items() if one.path},
        precision_tolerances={name: one.tolerances for name, one in kept.items()},
        precision_reasons={name: list(_variant_reasons(one)) for name, one in kept.items()},
    )


def _reasons(found: Converted) -> Iterator[str]:
    yield ""
    yield "Chosen from what was measured between original and graph: rtol is ten times the largest"
    yield "error as a share of the values' size (at least 1e-5 for other processors), atol the same"
    yield "share of their root mean square. The golden cases took no part in it, and were met:"
    for one in found.figures:
        yield _reason(one)


def _variant_reasons(variant: Variant) -> Iterator[str]:
    yield f"The {variant.precision} file, made by {variant.made.converter}, and measured against"
    yield "the original as well: rtol is twice the largest error (at least 2e-3). Beyond"
    yield f"{variant.within:g} it would have been left out."
    for one in variant.figures:
        yield _reason(one)


def _reason(one: OutputParity) -> str:
    return (
        f"  {one.output}: {one.samples} samples within {one.share:.2g} "
        f"(largest error {one.max_abs_error:.2g}), golden cases within "
        f"{one.held_share:.2g}; values of about {one.scale:.2g}"
    )


def _spelled(tensor: GraphTensor) -> str:
    return f"{tensor.name} {spell(tensor.datatype, tensor.shape)}"
