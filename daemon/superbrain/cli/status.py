"""`superbrain status`: what serves, how it does, what is under way, what needs attention."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from superbrain.cli.control import ControlClient, ControlError, add_control_options, control_client
from superbrain.cli.display import ago, make_console, print_json, show
from superbrain.cli.status_view import status_view
from superbrain.domain.health import Health
from superbrain.domain.operations import GetHealth, HealthReply

WATCH_INTERVAL_S: Final = 1.0

_EXAMPLES = """\
examples:
  superbrain status              once
  superbrain status --watch      until Ctrl-C, once a second
  superbrain status --json | jq '.models[] | {name, version, state}'

--json prints the health report; docs/health.schema.json describes it.
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `status`."""
    parser = commands.add_parser(
        "status",
        help="what serves, how it does, and what needs attention",
        description="Show what serves, how it does, what is under way and what needs attention.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--watch", action="store_true", help="keep it on the screen")
    parser.add_argument("--json", action="store_true", help="print the health report as JSON")
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask for the health report and show it."""
    client = control_client(args)
    if args.watch:
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            _watch(client, as_json=args.json)
        return 0
    health = _health(client)
    if args.json:
        print_json(health)
        return 0
    console = make_console()
    show(console, status_view(console, health))
    return 0


def _health(client: ControlClient) -> Health:
    return client.ask(GetHealth(), HealthReply).health


def _watch(client: ControlClient, *, as_json: bool) -> None:
    """Until interrupted; on a terminal in place, otherwise report after report."""
    pause = threading.Event().wait
    if as_json:
        while True:
            print(msgspec.json.encode(_health(client)).decode(), flush=True)
            pause(WATCH_INTERVAL_S)
    console = make_console()
    if not console.is_terminal:
        while True:
            show(console, status_view(console, _health(client)), Text())
            pause(WATCH_INTERVAL_S)
    health = _health(client)  # what cannot be asked at all is said before the screen is taken
    with Live(console=console, screen=True, auto_refresh=False) as live:
        follow(live.update, console, client, health, pause)


def follow(
    update: Callable[..., None],
    console: Console,
    client: ControlClient,
    health: Health,
    pause: Callable[[float], object],
) -> None:
    """Show report after report; while the daemon is away, the last one and why it is old."""
    while True:
        view: RenderableType
        try:
            health = _health(client)
            view = status_view(console, health)
        except ControlError as error:
            age = ago(dt.datetime.now(dt.UTC), health.at)
            note = Text(f"{error.message}; this is how it was {age} ago\n", style="bold yellow")
            view = Group(note, status_view(console, health))
        update(view, refresh=True)
        pause(WATCH_INTERVAL_S)
