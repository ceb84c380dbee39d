"""`superbrain bundle precision FOLDER`: graphs in fp16 and int8, measured, proven, kept or not.

Everything is made and proven on a copy. What reproduces the golden cases within the bundle's
tolerances is put beside the graph it was made from; what does not is shown with its figures.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from superbrain.bundle.disk import not_written
from superbrain.bundle.folder import read_folder
from superbrain.cli.display import heading, make_console, plain_table, print_json, show
from superbrain.cli.proof_table import proof_view
from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import Manifest
from superbrain.domain.quantities import bytes_text
from superbrain.domain.rungs import is_torchscript
from superbrain.engines.conversion import CONVERTERS
from superbrain.serve.converting import ConvertedGraph, convert_staged, precision_path, stage
from superbrain.serve.trial import Trial, try_rung
from superbrain.wire.errors import SuperbrainError

LIGHT_HELP: Final = "fp16 by rounding every value, though AutoCast (nvidia-modelopt) is installed"
_RUNG: Final = "onnxruntime:cpu-{}"
_EXAMPLES = """\
examples:
  superbrain bundle precision ocr                      every graph in fp16 and in int8
  superbrain bundle precision ocr --to int8 --graph det
  superbrain bundle precision ocr --to fp16 --keep     keep the file though it does not prove here
  superbrain bundle precision ocr --to fp16 --light    without AutoCast, though it is installed
"""


class Attempt(msgspec.Struct, frozen=True):
    """One precision: its graphs, its proof on this machine, and whether the files were kept."""

    precision: str
    graphs: list[ConvertedGraph]
    trial: Trial | None
    kept: bool

    @property
    def proven(self) -> bool:
        """Whether the bundle with these files reproduces its golden cases."""
        return self.trial is not None and self.trial.passed


class PrecisionResult(msgspec.Struct, frozen=True):
    """What `bundle precision --json` prints."""

    name: str
    version: str
    attempts: list[Attempt]


def register_precision(actions: argparse._SubParsersAction[Any]) -> None:
    """Add `bundle precision`."""
    parser = actions.add_parser(
        "precision",
        help="make the graphs in fp16 and int8, and see whether they are right",
        description="Make the graphs of a folder in other precisions, on copies: fp16 by\n"
        "AutoCast (nvidia-modelopt) where it is installed beside superbrain, else by rounding;\n"
        "int8 by static quantisation, calibrated with the golden requests.\n"
        "Measure what each gives for the same inputs, prove the bundle with it, and keep what\n"
        "proves. bundle.toml stays as it is; what to add is printed. Needs the extra 'author'.\n"
        "Exit code 0 means: all of them prove.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds bundle.toml")
    parser.add_argument(
        "--to",
        action="append",
        choices=tuple(CONVERTERS),
        help="this precision; may be given again (default: all)",
    )
    parser.add_argument(
        "--graph", action="append", metavar="NAME", help="this graph; may be given again"
    )
    parser.add_argument("--light", action="store_true", help=LIGHT_HELP)
    parser.add_argument("--keep", action="store_true", help="keep files that do not prove as well")
    parser.add_argument("--replace", action="store_true", help="replace files that are there")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.set_defaults(run=run_precision)


def run_precision(args: argparse.Namespace) -> int:
    """Make, measure, prove and keep; 0 when every precision proves."""
    if find_spec("onnx") is None:
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
    manifest = read_folder(args.folder)
    graphs = _chosen(manifest, args.graph)
    precisions = list(dict.fromkeys(args.to or CONVERTERS))
    if not args.replace:
        _check_free(args.folder, manifest, graphs, precisions)
    attempts = [_attempt(args, manifest, graphs, precision) for precision in precisions]
    if args.json:
        print_json(PrecisionResult(manifest.name, manifest.version, attempts))
    else:
        console = make_console()
        show(console, *_views(console, manifest, attempts))
    return 0 if all(attempt.proven for attempt in attempts) else 1


def _chosen(manifest: Manifest, names: Sequence[str] | None) -> list[str]:
    for name in names or ():
        if name not in manifest.graphs:
            raise RecipeError(
                f"--graph: expected one of {', '.join(manifest.graphs)}, found {name!r}",
                reason="RECIPE_FIELD",
            )
    chosen = list(dict.fromkeys(names or manifest.graphs))
    for name in chosen:
        if is_torchscript(manifest.graphs[name].path):
            raise RecipeError(
                f"graph {name!r}: expected an ONNX graph, found TorchScript, which has no "
                "converters to other precisions",
                reason="RECIPE_FIELD",
            )
    return chosen


def _check_free(
    folder: Path, manifest: Manifest, graphs: Sequence[str], precisions: Sequence[str]
) -> None:
    for name in graphs:
        for precision in precisions:
            path = precision_path(manifest.graphs[name], precision)
            if (folder / path).exists():
                raise RecipeError(
                    f"{folder / path}: expected no such file yet, found one",
                    reason="RECIPE_OUTPUT",
                    mend="Remove it, name another precision with --to, or add --replace",
                )


def _attempt(
    args: argparse.Namespace, manifest: Manifest, graphs: list[str], precision: str
) -> Attempt:
    """Make and prove one precision on a copy, and bring back what is to be kept."""
    with tempfile.TemporaryDirectory(prefix="superbrain-precision-") as scratch:
        staged = Path(scratch)
        stage(args.folder, staged)
        converted = convert_staged(staged, manifest, graphs, precision, light=args.light)
        if converted.error:
            raise SuperbrainError(converted.error, mend=converted.mend)
        made = [one for one in converted.graphs if not one.error]
        trial = _try(staged, manifest, made, precision) if made else None
        kept = bool(made) and (args.keep or (trial is not None and trial.passed))
        if kept:
            for one in made:
                _bring(staged / one.path, args.folder / one.path)
    return Attempt(precision, converted.graphs, trial, kept)


def _try(staged: Path, manifest: Manifest, made: Sequence[ConvertedGraph], precision: str) -> Trial:
    graphs = dict(manifest.graphs)
    for one in made:
        known = graphs[one.graph]
        graphs[one.graph] = msgspec.structs.replace(
            known, precisions=known.precisions | {precision: one.path}
        )
    with_files = msgspec.structs.replace(manifest, graphs=graphs)
    return try_rung(staged, with_files, _RUNG.format(precision), timed=True)


def _bring(source: Path, target: Path) -> None:
    """Copy a whole file or none."""
    unfinished = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, unfinished)
        unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        message, mend = not_written(target, error)
        raise RecipeError(message, reason="RECIPE_OUTPUT", mend=mend) from error


# --- what is shown --------------------------------------------------------------------------------


def _views(
    console: Console, manifest: Manifest, attempts: Sequence[Attempt]
) -> Iterator[RenderableType]:
    yield heading(f"{manifest.name} {manifest.version}")
    for attempt in attempts:
        yield Text(f"\n{attempt.precision}", style="bold")
        yield _errors(console, attempt.graphs)
        for one in attempt.graphs:
            yield from _maker(one)
        yield from _proof(console, attempt)
    yield from _advice([attempt for attempt in attempts if attempt.kept])


def _errors(console: Console, graphs: Sequence[ConvertedGraph]) -> Table:
    """How far each output is from the original's, over all inputs that the golden cases give."""
    table = plain_table(console)
    table.add_column("graph", overflow="fold")
    table.add_column("output", overflow="fold")
    for name in ("inputs", "max abs", "max rel", "cosine", "size", "was"):
        table.add_column(name, justify="right", no_wrap=True)
    for graph in graphs:
        for one in graph.outputs:
            table.add_row(
                Text(graph.graph),
                Text(one.output),
                str(graph.samples),
                "" if one.max_abs_error is None else f"{one.max_abs_error:.3g}",
                "" if one.max_rel_error is None else f"{one.max_rel_error:.3g}",
                "" if one.cosine is None else f"{one.cosine:.6f}",
                bytes_text(graph.size_bytes),
                bytes_text(graph.original_bytes),
            )
    return table


def _maker(one: ConvertedGraph) -> Iterator[RenderableType]:
    """Say by what a graph was converted, or why it was not: converters give different numbers."""
    if one.converter:
        yield Text(f"{one.graph}: by {one.converter}", style="dim")
    if one.note:
        yield Text(f"{one.graph}: {one.note}", style="yellow")
    if one.error:
        yield Text(f"{one.graph}: not made: {one.error}", style="yellow")
        if one.mend:
            yield Text(f"  → {one.mend}", style="dim")


def _proof(console: Console, attempt: Attempt) -> Iterator[RenderableType]:
    trial = attempt.trial
    if trial is None:
        yield Text("not proven: there is no graph to prove", style="bold red")
    elif trial.proof is None:
        yield Text(f"not proven on {trial.rung}: {trial.reason}", style="bold red")
    else:
        yield proof_view(console, trial.proof)
        if trial.passed:
            yield Text(f"proven on {trial.rung}, {trial.median_ms:.3g} ms a request", style="green")
        else:
            kept = "kept all the same" if attempt.kept else "not kept"
            yield Text(f"harmful: not proven on {trial.rung}, {kept}", style="bold red")
            if len(attempt.graphs) > 1:
                yield Text("  To see which graph it is, make one at a time: --graph NAME", "dim")


def _advice(kept: Sequence[Attempt]) -> Iterator[RenderableType]:
    """What to write into bundle.toml."""
    if not kept:
        return
    lines: dict[str, list[str]] = {}
    for attempt in kept:
        for one in attempt.graphs:
            if not one.error:
                lines.setdefault(one.graph, []).append(f'{attempt.precision} = "{one.path}"')
    rungs = ", ".join(f'"{_RUNG.format(attempt.precision)}"' for attempt in kept)
    yield heading("Add to bundle.toml")
    yield Text(f'ladder = [{rungs}, "onnxruntime:cpu"]\nselect = "fastest"')
    for graph, entries in lines.items():
        yield Text("\n".join([f"\n[graphs.{graph}.precisions]", *entries]))
