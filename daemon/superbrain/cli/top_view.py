"""What `superbrain top` shows, made to fit: host, models with curves, what is under way, events.

`top_view(console, trend, health, recent, height=24)` is as wide as the console and at most `height`
lines high. Models come first; what does not fit of them is counted. What is under way and what
needs attention follow; events fill the rest. A wide terminal gets more columns, a high one a second
line for each model.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.text import Text

from superbrain.cli.display import (
    ago,
    arrow,
    has_symbols,
    state_text,
)
from superbrain.cli.history import step_text
from superbrain.cli.sparkline import meter
from superbrain.cli.top_models import model_lines
from superbrain.cli.top_trend import Trend
from superbrain.domain.deployment import UNFINISHED
from superbrain.domain.health import GpuFacts, Health, HostFacts, Problem, ProcessFacts
from superbrain.domain.operations import Transition
from superbrain.domain.quantities import bytes_text

_BAR: Final = 12
_SHORT_BAR: Final = 6
_NARROW: Final = 100
_PLENTY: Final = 10_000


def top_view(
    console: Console,
    trend: Trend,
    health: Health,
    recent: Sequence[Transition],
    *,
    height: int | None = None,
    foot: str = "",
    note: str = "",
) -> RenderableType:
    """Everything that fits into `height` lines; all of it where that is None.

    With a `foot`, which stands in the last of them, exactly so many.
    """
    rest = _PLENTY if height is None else height
    head = [_headline(console, health), *_host(console, health)]
    if note:
        head.insert(1, _cut(console, Text(note, style="bold yellow")))
    rest -= len(head) + bool(foot) + 1
    models, used = model_lines(console, trend, rest)
    rest -= used
    below: list[RenderableType] = []
    for title, lines, share in (
        ("Under way", _under_way(console, health, trend), 0.5),
        ("Needs attention", _problems(console, health.problems), 0.6),
        ("Events", _events(console, recent), 1.0),
    ):
        fitting = min(len(lines), max(0, int(rest * share) - 2))
        if fitting:
            below += [Text(), Text(title, style="bold"), *lines[:fitting]]
            rest -= fitting + 2
    if foot:
        below += [*[Text()] * rest, Text(foot, style="dim")]
    return Group(*head, Text(), *models, *below)


def _cut(console: Console, text: Text) -> Text:
    """Make one line of it."""
    line = Text("  ").join(part for part in text.split() if part.plain.strip())
    line.truncate(console.width, overflow="ellipsis")
    return line


# --- the host -----------------------------------------------------------------------------------


def _headline(console: Console, health: Health) -> Text:
    line = Text(f"superbrain {health.version}", style="bold")
    line.append(f" on {health.host.hostname}  ", style="not bold")
    line.append_text(state_text(console, health.status))
    ready = "ready" if health.ready else "not ready"
    line.append(f"  {ready}, up {ago(health.at, health.started_at)}", style="not bold dim")
    if not health.gateway.running:
        line.append("  gateway down", style="bold red")
    clock = f"{health.at.astimezone():%H:%M:%S}"
    if line.cell_len + len(clock) + 2 <= console.width:
        line.append(f"{clock:>{console.width - line.cell_len}}", style="not bold dim")
    return _cut_end(console, line)


def _cut_end(console: Console, line: Text) -> Text:
    line.truncate(console.width, overflow="ellipsis")
    return line


def _host(console: Console, health: Health) -> Iterator[Text]:
    host, bar = health.host, 0
    if has_symbols(console):
        bar = _BAR if console.width >= _NARROW else _SHORT_BAR
    parts = [_cpu(host, bar), _memory(host, bar), _disk(host)]
    yield _cut_end(console, Text("   ").join(parts))
    for gpu in health.gpus:
        yield _cut_end(console, _gpu(gpu, bar))
    parts = [_process("daemon", health.process), _process("gateway", health.gateway.process)]
    if health.tcp is not None:
        parts.append(_process("tcp", health.tcp.process))
        parts.append(Text(f"{health.tcp.clients} tcp clients", style="dim"))
    yield _cut_end(console, Text("   ").join(parts))


def _cpu(host: HostFacts, bar: int) -> Text:
    return _gauge("cpu", host.cpu_percent, f"{host.cpu_count} cores", bar)


def _memory(host: HostFacts, bar: int) -> Text:
    used = host.memory_total_bytes - host.memory_available_bytes
    share = 100 * used / host.memory_total_bytes if host.memory_total_bytes else None
    return _gauge("memory", share, f"of {bytes_text(host.memory_total_bytes)}", bar)


def _disk(host: HostFacts) -> Text:
    return Text(f"disk {bytes_text(host.disk_free_bytes)} free", style="dim")


def _gauge(name: str, percent: float | None, what: str, bar: int) -> Text:
    line = Text(f"{name} ", style="dim")
    if percent is None:
        return line.append("?")
    if bar:
        line.append_text(meter(percent, bar)).append(" ")
    line.append(f"{percent:3.0f} %", style="not dim")
    return line.append(f" {what}", style="dim")


def _gpu(gpu: GpuFacts, bar: int) -> Text:
    parts = [_gauge(f"gpu {gpu.index}", gpu.utilization_percent, gpu.name, bar)]
    if gpu.memory_used_bytes is not None and gpu.memory_total_bytes is not None:
        used, total = bytes_text(gpu.memory_used_bytes), bytes_text(gpu.memory_total_bytes)
        parts.append(Text(f"memory {used} of {total}", style="dim"))
    if gpu.temperature_celsius is not None:
        parts.append(Text(f"{gpu.temperature_celsius:.0f} °C", style="dim"))
    if gpu.power_watts is not None:
        parts.append(Text(f"{gpu.power_watts:.0f} W", style="dim"))
    return Text("   ").join(parts)


def _process(name: str, facts: ProcessFacts | None) -> Text:
    if facts is None:
        return Text(f"{name} is not running", style="bold red")
    cpu = f" {facts.cpu_percent:.0f} %" if facts.cpu_percent is not None else ""
    memory = f" {bytes_text(facts.rss_bytes)}" if facts.rss_bytes is not None else ""
    return Text(f"{name}{cpu}{memory}", style="dim")


# --- below --------------------------------------------------------------------------------------


def _under_way(console: Console, health: Health, trend: Trend) -> list[Text]:
    lines = []
    for model in trend.models:
        candidate = model.candidate
        if candidate is None or candidate.state not in UNFINISHED:
            continue
        line = Text.assemble((model.name, "bold"), f" {candidate.version}  ")
        line.append(candidate.state.lower().replace("_", " "), style="cyan")
        if candidate.rung:
            line.append(f" {candidate.rung}", style="dim")
        if candidate.percent is not None:
            line.append("  ")
            if has_symbols(console):
                line.append_text(meter(candidate.percent, _BAR, style="cyan")).append(" ")
            line.append(f"{candidate.percent:.0f} %")
        since = ago(health.at, candidate.since)
        detail = ", ".join(part for part in (candidate.detail, since and f"since {since}") if part)
        line.append(f"  {detail}", style="dim")
        lines.append(_cut(console, line) if "\n" in line.plain else _cut_end(console, line))
    return lines


def _problems(console: Console, problems: Sequence[Problem]) -> list[Text]:
    return [
        _cut(
            console,
            Text.assemble(
                state_text(console, problem.severity),
                "  ",
                (problem.subject, "bold"),
                f": {problem.message}",
                (f"  {arrow(console)} {problem.mend}" if problem.mend else "", "cyan"),
            ),
        )
        for problem in problems
    ]


def _events(console: Console, recent: Sequence[Transition]) -> list[Text]:
    lines = []
    for step in recent:
        line = Text(f"{_when(step.at)}  ", style="dim")
        line.append(f"{step.model} {step.version}  ", style="not dim bold")
        text = step_text(console, step)
        text.style = "not dim"
        lines.append(_cut(console, line.append_text(text)))
    return lines


def _when(at: dt.datetime) -> str:
    return at.astimezone().strftime("%m-%d %H:%M:%S")
