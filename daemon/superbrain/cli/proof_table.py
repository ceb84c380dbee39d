"""A proof as people read it: a row for every compared output, and below it why any of them failed.

    case         output      tolerance  max abs  max rel   ms  verdict
    turned-90    label       exact                       6.31  failed
    turned-90    confidence  atol 0.01  0.00021  0.00023        proven

    turned-90, label: expected '90', found '270'

`superbrain bundle prove` and `superbrain report` show the same, so that an author and an operator
talk about the same figures. Where the terminal is too narrow for all columns, tolerances are told
once for each output below the table; figures and verdicts are never cut. A case that was proven in
batches too has a row for the worst of them, with how many requests shared the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from superbrain.cli.display import fits, milliseconds_text, plain_table
from superbrain.domain.proof import EVERY_OUTPUT, OutputFigures, Proof

_INDENT: Final = 2


class _Column(NamedTuple):
    """One column: `cell` writes what stands in it."""

    title: str
    cell: Callable[[OutputFigures], str]
    is_number: bool = False  # stands to the right, and is left out where nothing has one
    is_name: bool = False  # may be folded, everything else is kept whole


def proof_view(console: Console, proof: Proof) -> RenderableType:
    """The table of one proof, and below it the reason of every failure."""
    return Group(*_parts(console, proof))


def _parts(console: Console, proof: Proof) -> Iterator[RenderableType]:
    if not proof.figures:
        yield Text(proof.first_failure)
        return
    table = _table(console, proof, with_tolerances=True)
    if fits(console, table):
        yield table
    else:
        yield _table(console, proof, with_tolerances=False)
        yield from _tolerances(proof)
    if proof.failures:
        yield Text()
        yield from (_indented(_reason(figures)) for figures in proof.failures)


def _table(console: Console, proof: Proof, *, with_tolerances: bool) -> Table:
    table = plain_table(console)
    columns = [
        column
        for column in _columns(proof)
        if (with_tolerances or column.title != "tolerance")
        and (not column.is_number or any(map(column.cell, proof.figures)))
    ]
    for column in columns:
        justify = "right" if column.is_number else "left"
        no_wrap = not column.is_name
        table.add_column(column.title, justify=justify, no_wrap=no_wrap, overflow="fold")  # type: ignore[arg-type]
    table.add_column("verdict", no_wrap=True)
    for figures in proof.figures:
        cells = [Text(column.cell(figures)) for column in columns]
        table.add_row(*cells, _verdict(figures))
    return table


def _columns(proof: Proof) -> tuple[_Column, ...]:
    times = _times(proof)
    return (
        _Column("case", lambda one: one.case, is_name=True),
        _Column("output", _output, is_name=True),
        _Column("batch", lambda one: str(one.batch or ""), is_number=True),
        _Column("tolerance", lambda one: one.tolerance),
        _Column("max abs", lambda one: _figure(one.max_abs_error), is_number=True),
        _Column("max rel", lambda one: _figure(one.max_rel_error), is_number=True),
        _Column("cosine", lambda one: _cosine(one.cosine), is_number=True),
        _Column(
            "ms",
            lambda one: "" if one.batch else times.get((one.case, _output(one)), ""),
            is_number=True,
        ),
    )


def _times(proof: Proof) -> dict[tuple[str, str], str]:
    """Time of each case beside the first output of its response: it is of the whole pipeline."""
    alone = [one for one in proof.figures if not one.graph and not one.batch]
    first = {one.case: _output(one) for one in reversed(alone)}
    return {
        (time.case, first[time.case]): milliseconds_text(time.milliseconds)
        for time in proof.times
        if time.case in first
    }


def _tolerances(proof: Proof) -> Iterator[RenderableType]:
    """Each output's tolerance, which is the same in every case."""
    told = {_output(one): one.tolerance for one in proof.figures if one.tolerance}
    yield Text()
    for output, tolerance in told.items():
        yield _indented(Text(f"tolerance of {output}: {tolerance}", style="dim"))


def _reason(figures: OutputFigures) -> Text:
    before_any = figures.output == EVERY_OUTPUT and not figures.graph
    where = figures.case if before_any else f"{figures.case}, {_output(figures)}"
    where += f" in a batch of {figures.batch}" if figures.batch else ""
    return Text(f"{where}: ", style="bold").append(figures.reason, style="not bold")


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, _INDENT))


def _output(figures: OutputFigures) -> str:
    return f"{figures.graph}/{figures.output}" if figures.graph else figures.output


def _verdict(figures: OutputFigures) -> Text:
    return Text("proven", "green") if figures.passed else Text("failed", "bold red")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
