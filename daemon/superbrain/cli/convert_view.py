"""Tables of `superbrain convert`: errors for each output, environments, and what was written."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from superbrain.cli.convert_folder import ConvertResult, PrecisionResult
from superbrain.cli.display import plain_table
from superbrain.convert.environments import Environment, setup_command
from superbrain.convert.parity import OutputParity
from superbrain.domain.quantities import bytes_text


def parity_view(console: Console, figures: Sequence[OutputParity]) -> Table:
    """One row for each output: how far the graph is off, and what follows."""
    table = plain_table(console)
    for name in (
        "output",
        "samples",
        "largest error",
        "share",
        "on cases",
        "worst at",
        "tolerance",
    ):
        right = name in {"samples", "largest error", "share", "on cases"}
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for one in figures:
        table.add_row(
            one.output,
            str(one.samples),
            one.apart or f"{one.max_abs_error:.2g}",
            "" if one.apart else f"{one.share:.2g}",
            f"{one.held_share:.2g}" if one.agrees else "",
            " ".join(f"{name}={size}" for name, size in one.worst_sizes.items()) or "fixed sizes",
            one.tolerance_text if one.agrees else Text("does not agree", style="bold red"),
        )
    return table


def environments_view(
    console: Console, place: Path, found: Sequence[Environment]
) -> Iterator[RenderableType]:
    """What is there, and how to get the rest."""
    table = plain_table(console)
    for name in ("framework", "state", "size", "Python", "holds"):
        table.add_column(name, justify="right" if name == "size" else "left", no_wrap=True)
    for one in found:
        size = bytes_text(one.size_bytes) if one.size_bytes else ""
        table.add_row(one.framework, one.state, size, one.python, one.holds)
    yield table
    yield Text(f"\nin {place}", style="dim")
    if missing := next((one.framework for one in found if one.state != "ready"), ""):
        yield Text(f"make one with: {setup_command(place, missing)}", style="dim")


def result_view(
    console: Console, result: ConvertResult, figures: Sequence[OutputParity]
) -> Iterator[RenderableType]:
    """The table of errors, what was written, and what comes next."""
    yield parity_view(console, figures)
    yield Text(
        "\nshare: an error against the size of the values. A tolerance is ten times the largest,\n"
        "chosen on these samples and tried on the golden cases, which took no part in it",
        style="dim",
    )
    for one in result.precisions:
        yield from _precision_view(console, one)
    for note in result.notes:
        yield Text(f"note     {note}")
    for tensor in (*result.inputs, *result.outputs):
        yield Text(f"tensor   {tensor}")
    yield Text(f"made     {result.folder}, {len(result.cases)} golden cases of {result.original}")
    yield Text(f"proven   on {', '.join(reversed(result.ladder))} of this machine", style="green")
    place = shlex.quote(str(result.folder))
    yield Text(f"next     superbrain bundle build {place} --key FILE.key")


def _precision_view(console: Console, one: PrecisionResult) -> Iterator[RenderableType]:
    """One precision: how far it is from the original, and whether it is in the bundle."""
    yield Text(f"\n{one.precision}", style="bold")
    if one.converter:
        yield Text(f"by       {one.converter}", style="dim")
    if one.note:
        yield Text(f"note     {one.note}", style="yellow")
    if one.figures:
        yield parity_view(console, one.figures)
    if one.kept:
        size = bytes_text(one.size_bytes)
        yield Text(
            f"kept     {one.rung}, {size}, {one.median_ms:.3g} ms a request here; within "
            f"{one.within:g} of the original",
            style="green",
        )
    else:
        yield Text(f"harmful  not in the bundle. {one.reason}", style="bold red")
