"""`superbrain history`: every step of every deployment's life, the newest first."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, Final, get_args

from rich.console import Console, RenderableType
from rich.text import Text

from superbrain.cli.control import add_control_options, control_client
from superbrain.cli.display import arrow, local_time, make_console, plain_table, print_json, show
from superbrain.cli.numbers import whole
from superbrain.domain.deployment import State
from superbrain.domain.health import IncidentKind
from superbrain.domain.health_rules import ENDED_BADLY
from superbrain.domain.operations import GetHistory, HistoryReply, Transition

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 10_000
_INCIDENTS: Final = frozenset(get_args(IncidentKind))
_WORD: Final = re.compile(r"([A-Z])")

_EXAMPLES = """\
examples:
  superbrain history                  the newest steps of all models
  superbrain history ocr --limit 10
  superbrain history --json | jq '.[] | select(.state_to == "REJECTED")'
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `history`."""
    parser = commands.add_parser(
        "history",
        help="what happened to every deployment",
        description="Show the newest steps of deployments, of one model or of all.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default="", metavar="MODEL", help="only this model")
    parser.add_argument(
        "--limit",
        type=whole(1, MAX_LIMIT),
        default=DEFAULT_LIMIT,
        metavar="N",
        help="at most so many steps (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the steps as a JSON list")
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask for the transitions and show them."""
    question = GetHistory(model=args.model, limit=args.limit)
    transitions = control_client(args).ask(question, HistoryReply).transitions
    if args.json:
        print_json(transitions)
        return 0
    console = make_console()
    if transitions:
        show(console, history_view(console, transitions))
    else:
        about = f"to {args.model!r}" if args.model else "yet"
        show(console, Text(f"Nothing has happened {about}."))
    return 0


def history_view(console: Console, transitions: Sequence[Transition]) -> RenderableType:
    """One row for each step; why it happened stands below it where it is known."""
    table = plain_table(console)
    table.add_column("at", no_wrap=True)
    table.add_column("deployment", no_wrap=True)
    table.add_column("step")
    for step in transitions:
        name = Text(f"{step.model} {step.version}", style="bold")
        name.append(f" #{step.deployment_id}", style="not bold dim")
        table.add_row(local_time(step.at), name, step_text(console, step))
    return table


def step_text(console: Console, step: Transition) -> Text:
    """`BUILDING → PROVING`, on which rung, and below it why."""
    if step.event in _INCIDENTS:  # it went on as it was, but something happened
        text = Text(_WORD.sub(r" \1", step.event).lower().strip(), style="yellow")
        return text.append(f"\n{step.detail}", style="dim")
    text = Text(f"{step.state_from.lower()} {arrow(console)} ") if step.state_from else Text()
    text.append(step.state_to.lower(), style=_style(step.state_to))
    if step.rung:
        text.append(f"  {step.rung}", style="dim")
    if step.detail:
        text.append(f"\n{step.detail}", style="yellow" if step.state_to in ENDED_BADLY else "dim")
    return text


def _style(state: str) -> str:
    if state in ENDED_BADLY:
        return "bold red"
    return "green" if state in {State.LIVE, State.PROBATION} else ""
