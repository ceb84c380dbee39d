"""How the operator's commands look: one console, few colours, plain text when nobody watches.

On a terminal: colour, lines and symbols. Into a pipe or a file: words and spaces only, wide enough
that no cell is cut. `NO_COLOR` and `COLUMNS` are honoured.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from typing import Final

import msgspec
from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from superbrain.domain.quantities import duration_text

PIPED_WIDTH: Final = 200

STYLES: Final = {
    "ok": "green",
    "note": "yellow",
    "problem": "bold red",
    "ready": "green",
    "starting": "cyan",
    "warning": "yellow",
    "degraded": "yellow",
    "critical": "bold red",
    "unavailable": "bold red",
}
SYMBOLS: Final = {
    "ok": "●",
    "note": "▲",
    "problem": "✖",
    "ready": "●",
    "starting": "◌",
    "warning": "▲",
    "degraded": "▲",
    "critical": "✖",
    "unavailable": "✖",
}


def make_console() -> Console:
    """The console on standard output, as wide as its reader allows."""
    is_terminal = sys.stdout.isatty()
    width = None if is_terminal or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False, emoji=False, soft_wrap=False)


def show(console: Console, *views: RenderableType) -> None:
    """Print `views`; into a pipe without the spaces that only fill a line."""
    if console.is_terminal:
        console.print(*views, sep="\n")
        return
    with console.capture() as captured:
        console.print(*views, sep="\n")
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_json(value: object) -> None:
    """Print a structure as indented JSON, the way programs read it."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def has_symbols(console: Console) -> bool:
    """Whether symbols and lines may be drawn: on a terminal that speaks Unicode."""
    return console.is_terminal and console.encoding.lower().startswith("utf")


def state_text(console: Console, state: str) -> Text:
    """A state or severity in its colour, with its symbol where symbols may be drawn."""
    symbol = f"{SYMBOLS[state]} " if state in SYMBOLS and has_symbols(console) else ""
    return Text(f"{symbol}{state}", style=STYLES.get(state, ""))


def arrow(console: Console) -> str:
    """What leads to the next state, or to the mend."""
    return "→" if has_symbols(console) else "->"


def plain_table(console: Console, *, gap: int = 2) -> Table:
    """A table without frame, `gap` spaces between columns; a rule under its header if it can be."""
    ruled = has_symbols(console)
    return Table(
        box=box.SIMPLE_HEAD if ruled else None,
        header_style="dim" if ruled else "",
        padding=(0, gap - 1 if ruled else gap, 0, 0),  # a box brings a space of its own
        pad_edge=False,
        show_edge=False,
    )


def fits(console: Console, view: RenderableType) -> bool:
    """Whether `view` can be shown without cutting or folding anything."""
    endless = console.options.update(max_width=10_000)
    return Measurement.get(console, endless, view).maximum <= console.width


def heading(text: str) -> Text:
    """What stands above a part of the output."""
    return Text(f"\n{text}", style="bold")


def local_time(at: dt.datetime) -> str:
    """`at` in the reader's own time zone, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(now: dt.datetime, then: dt.datetime | None) -> str:
    """How long before `now` it was; empty when unknown."""
    return "" if then is None else duration_text(max(0.0, (now - then).total_seconds()))


def count_text(number: int) -> str:
    """A count in at most seven characters: 12,345, then 1.2 M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:,}"


def milliseconds_text(value: float) -> str:
    """Milliseconds with as many decimals as matter."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"
