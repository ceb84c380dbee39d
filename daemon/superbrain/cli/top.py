"""`superbrain top`: a live view of rates, latencies, load, deployments and what happens."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import time
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from superbrain.cli.control import ControlClient, ControlError, add_control_options, control_client
from superbrain.cli.display import ago, make_console, print_json, show
from superbrain.cli.keyboard import Keyboard
from superbrain.cli.numbers import fitting
from superbrain.cli.top_trend import Trend
from superbrain.cli.top_view import top_view
from superbrain.domain.health import Health
from superbrain.domain.operations import (
    GetHealth,
    GetHistory,
    HealthReply,
    HistoryReply,
    Transition,
)

INTERVAL_S: Final = 2.0
MOST_EVENTS: Final = 100
_FOOT: Final = "q quits"

_EXAMPLES = """\
examples:
  superbrain top                       until q or Ctrl-C
  superbrain top --interval 1
  superbrain top --once                two looks, one picture
  superbrain top --json --once | jq '.models[] | {name, requests_per_second, p99_ms}'
  superbrain top --json >> top.jsonl   a line for every look

Rates are between two looks. p50 and p99 are of the newest requests, at most 1024 by each road; the
curves show the mean of each look, the newest at the right. The daemon refreshes its figures every
health.interval_s, so a shorter interval shows nothing more.
"""


class Look(NamedTuple):
    """What the daemon said."""

    health: Health
    recent: list[Transition]


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `top`."""
    parser = commands.add_parser(
        "top",
        help="a live view: rates, latencies, load, deployments, events",
        description="Show how busy models and host are and what happens, until q is pressed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="look twice, show it once, end")
    parser.add_argument("--json", action="store_true", help="print each look as one line of JSON")
    parser.add_argument(
        "--interval",
        type=fitting(float, lambda pause: 0.1 <= pause <= 3600, "0.1 to 3600 seconds"),
        default=INTERVAL_S,
        metavar="SECONDS",
        help="between two looks (%(default)g)",
    )
    add_control_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, and look again."""
    client = control_client(args)
    trend = Trend()
    first = look(client)  # what cannot be asked at all is said before the screen is taken
    trend.add(first.health)
    if args.once:
        _once(client, trend, args)
        return 0
    console = make_console()
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        if args.json or not console.is_terminal:
            _print(client, trend, args, console)
        else:
            _live(client, trend, args, console, first)
    return 0


def look(client: ControlClient) -> Look:
    """Ask the daemon."""
    health = client.ask(GetHealth(), HealthReply).health
    return Look(health, client.ask(GetHistory(limit=MOST_EVENTS), HistoryReply).transitions)


def _once(client: ControlClient, trend: Trend, args: argparse.Namespace) -> None:
    """Look until figures are new, so that there is a rate, but not for ever."""
    end = time.monotonic() + 2 * args.interval
    while True:
        time.sleep(min(args.interval, max(0.0, end - time.monotonic())))
        found = look(client)
        trend.add(found.health)
        if trend.over_s or time.monotonic() >= end:
            break
    if args.json:
        print_json(trend.top(*found))
        return
    console = make_console()
    height = console.height - 1 if console.is_terminal else None  # the prompt's line
    show(console, top_view(console, trend, *found, height=height))


def _print(client: ControlClient, trend: Trend, args: argparse.Namespace, console: Console) -> None:
    """One look after the other, for programs and files."""
    while True:
        time.sleep(args.interval)
        found = look(client)
        trend.add(found.health)
        if args.json:
            print(msgspec.json.encode(trend.top(*found)).decode(), flush=True)
        else:
            show(console, top_view(console, trend, *found), Text())


def _live(
    client: ControlClient, trend: Trend, args: argparse.Namespace, console: Console, found: Look
) -> None:
    """On the whole screen; while the daemon is away, the last look and why it is old."""
    note, due = "", time.monotonic() + min(args.interval, 0.5)
    with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            view = top_view(console, trend, *found, height=console.height, foot=_FOOT, note=note)
            live.update(view, refresh=True)
            if keyboard.wait(due - time.monotonic()) in {"q", "Q"}:
                return
            if time.monotonic() < due:
                continue
            due = time.monotonic() + args.interval
            try:
                found = look(client)
                trend.add(found.health)
                note = ""
            except ControlError as error:
                age = ago(dt.datetime.now(dt.UTC), found.health.at)
                note = f"{error.message}; this is how it was {age} ago"
