"""`superbrain report MODEL`: one deployment with its facts, every proof, and its life."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from superbrain.cli.control import add_control_options, control_client
from superbrain.cli.display import (
    arrow,
    heading,
    local_time,
    make_console,
    milliseconds_text,
    plain_table,
    print_json,
    show,
)
from superbrain.cli.history import step_text
from superbrain.cli.proof_table import proof_view
from superbrain.domain.operations import GetReport, ProofRecord, ReportReply, Transition
from superbrain.domain.proof import Proof
from superbrain.domain.quantities import duration_text
from superbrain.domain.rung_facts import RungFacts

_SELECTED = {"first": "", "fastest": "; the fastest that proves"}
_NOT_KEPT = "not known: its bundle is not in the store"
_VERDICT_STYLES = {"chosen": "green", "proven": "", "under way": "cyan", "not tried": "dim"}
_EXAMPLES = """\
examples:
  superbrain report ocr                    what serves now
  superbrain report ocr --version 3.1.0    another version, for example a rejected one
  superbrain report ocr --json | jq '.proofs[-1].proof.figures'
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `report`."""
    parser = commands.add_parser(
        "report",
        help="one deployment: its facts, its proofs, its life",
        description="Show one deployment: what it is, how it was proven, and what happened to it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument("--version", default="", help="the version (default: what serves)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask for the report and show it."""
    question = GetReport(model=args.model, version=args.version)
    report = control_client(args).ask(question, ReportReply)
    if args.json:
        print_json(report)
        return 0
    console = make_console()
    show(console, report_view(console, report))
    return 0


def report_view(console: Console, report: ReportReply) -> RenderableType:
    """Facts, proofs and life of one deployment."""
    return Group(*_parts(console, report))


def _parts(console: Console, report: ReportReply) -> Iterator[RenderableType]:
    title = Text(f"{report.model} {report.version}", style="bold")
    yield title.append(f"  deployment {report.deployment_id}", style="not bold dim")
    if report.description:
        yield Text(report.description)
    yield Text()
    yield _facts(console, report)
    if report.rungs:
        yield heading("Ladder")
        yield _ladder(console, report.rungs)
    if report.stored:
        yield heading("Serving")
        yield _settings(report)
    for record in report.proofs:
        yield _proof_heading(record)
        yield proof_view(console, record.proof)
    if not report.proofs:
        yield heading("No proof was run")
    if report.transitions:
        yield heading("Life")
        yield _life(console, report.transitions)


def _facts(console: Console, report: ReportReply) -> Table:
    separator = f" {arrow(console)} "
    facts = {"state": report.state.lower().replace("_", " ")}
    if report.reason is not None:
        mend = f"\n{arrow(console)} {report.reason.mend}" if report.reason.mend else ""
        facts["because"] = f"{report.reason.code}: {report.reason.message}{mend}"
    facts |= {
        "rung": report.rung or "none",
        "ladder": separator.join(report.ladder) + _SELECTED[report.select],
        "sequence": str(report.sequence),
        "created": local_time(report.created) if report.created else _NOT_KEPT,
        "signed by": ", ".join(report.signers) or ("nobody" if report.stored else _NOT_KEPT),
        "digest": report.digest,
    }
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(value))
    return table


def _ladder(console: Console, rungs: Sequence[RungFacts]) -> Table:
    """Every rung with its verdict; why not stands beside it."""
    table = plain_table(console)
    table.add_column("rung", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    timed = any(one.milliseconds is not None for one in rungs)
    if timed:
        table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold")
    for one in rungs:
        why = Text(one.reason).append(f"\n{one.mend}" if one.mend else "", style="dim")
        cells = [
            Text(one.rung),
            Text(one.verdict, style=_VERDICT_STYLES.get(one.verdict, "yellow")),
        ]
        if timed:
            cells.append(Text(milliseconds_text(one.milliseconds) if one.milliseconds else ""))
        table.add_row(*cells, why)
    return table


def _settings(report: ReportReply) -> Table:
    """How it is served, and why so."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in report.settings:
        table.add_row(one.name, Text(one.value), Text(one.why))
    return table


def _proof_heading(record: ProofRecord) -> Text:
    proof = record.proof
    text = heading(f"Proof on {proof.rung}")
    if proof.passed:
        text.append("  passed", style="not bold green")
    else:
        text.append("  failed", style="bold red")
    told = [part for part in (proof.runtime, _timing(proof), local_time(record.at)) if part]
    return text.append(f"  {', '.join(told)}", style="not bold dim")


def _timing(proof: Proof) -> str:
    """How long a request took, where rungs were compared."""
    timing = proof.timing
    if timing is None:
        return ""
    spread = f"{milliseconds_text(timing.fastest_ms)} to {milliseconds_text(timing.slowest_ms)}"
    median = milliseconds_text(timing.median_ms)
    return f"{median} ms a request, median of {timing.rounds} rounds of {spread}"


def _life(console: Console, transitions: Sequence[Transition]) -> Table:
    """Every step, the oldest first, with how long the state before it had lasted."""
    steps = sorted(transitions, key=lambda step: step.at)
    table = plain_table(console)
    table.add_column("at", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("step")
    before: dt.datetime | None = None
    for step in steps:
        lasted = "" if before is None else duration_text((step.at - before).total_seconds())
        table.add_row(local_time(step.at), lasted, step_text(console, step))
        before = step.at
    return table
