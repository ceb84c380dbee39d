"""The models of `superbrain top`: one line for each, or two, with as many columns as fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from superbrain.cli.display import (
    count_text,
    fits,
    has_symbols,
    milliseconds_text,
    plain_table,
    state_text,
)
from superbrain.cli.sparkline import sparkline
from superbrain.cli.top_trend import ModelTrend, Trend
from superbrain.domain.durations import STAGES
from superbrain.domain.quantities import bytes_text


class Layout(NamedTuple):
    """Which columns the table of models has, and how long its curves are; 0 for none."""

    rate_curve: int = 0
    time_curve: int = 0
    rung: bool = False
    load: bool = False
    stages: bool = False


# The richest that fits is taken.
_LAYOUTS: Final = (
    Layout(40, 40, rung=True, load=True, stages=True),
    Layout(24, 24, rung=True, load=True, stages=True),
    Layout(24, 24, rung=True, load=True),
    Layout(12, 12, rung=True, load=True),
    Layout(0, 12, rung=True, load=True),
    Layout(12, 12),
    Layout(0, 12),
    Layout(),
)


def model_lines(console: Console, trend: Trend, rest: int) -> tuple[list[RenderableType], int]:
    """Give the models that fit into the most of `rest` lines, and how many lines they take."""
    models = trend.models
    if not models:
        return [Text("No model is installed.")], 1
    header = 2 if has_symbols(console) else 1
    room = max(1, int(rest * 0.7) - header)
    layout = _layout(console, trend)
    second = not layout.load and 2 * len(models) <= room
    each = 2 if second else 1
    shown = models if each * len(models) <= room else models[: max(1, room - 1)]
    table = _table(console, trend, shown, layout, second=second)
    lines: list[RenderableType] = [table]
    used = header + each * len(shown)
    if len(shown) < len(models):
        hidden = len(models) - len(shown)
        lines.append(Text(f"and {hidden} more: superbrain status", style="dim"))
        used += 1
    return lines, used


def _layout(console: Console, trend: Trend) -> Layout:
    for layout in _LAYOUTS:
        if fits(console, _table(console, trend, trend.models, layout, second=not layout.load)):
            return layout
    return Layout()


def _table(
    console: Console, trend: Trend, models: Sequence[ModelTrend], layout: Layout, *, second: bool
) -> Table:
    table = plain_table(console, gap=2 if layout.load else 1)
    table.add_column("model", overflow="ellipsis", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("version", overflow="ellipsis", no_wrap=True)
    if layout.rung:
        table.add_column("rung", no_wrap=True)
    for name in ("req/s", "mean", "p50", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    if layout.stages:
        table.add_column("queue pre engine post ms", justify="right", no_wrap=True)
    table.add_column("wait", justify="right", no_wrap=True)
    if layout.load:
        table.add_column("cpu", justify="right", no_wrap=True)
        table.add_column("memory", justify="right", no_wrap=True)
    for model in models:
        table.add_row(*_row(console, trend, model, layout, second=second))
    return table


def _row(
    console: Console, trend: Trend, model: ModelTrend, layout: Layout, *, second: bool
) -> Iterator[Text]:
    name, state = Text(model.name, style="bold"), state_text(console, model.state)
    version, load = Text(model.version or "-"), _load(model)
    if second:  # what has no column of its own
        name.append(f"\n{model.rung or '-'}", style="not bold dim")
        state.append("\n").append_text(load[0].copy()).append(" cpu", style="dim")
        version.append("\n").append_text(load[1].copy())
    yield from (name, state, version)
    if layout.rung:
        yield Text(model.rung or "-", style="dim")
    curves = has_symbols(console)
    rates, times = trend.rates(model.name), trend.times(model.name)
    yield _curve(rates, layout.rate_curve * curves, "cyan").append_text(_rate(model, second=second))
    mean = Text("-" if model.mean_ms is None else milliseconds_text(model.mean_ms))
    yield _curve(times, layout.time_curve * curves, "green").append_text(mean)
    yield Text(milliseconds_text(model.p50_ms) if model.p99_ms else "-")
    yield Text(milliseconds_text(model.p99_ms) if model.p99_ms else "-")
    if layout.stages:
        yield _stages(model)
    yield Text(str(model.waiting), style="yellow" if model.waiting else "")
    if layout.load:
        yield from load


def _curve(values: Sequence[float | None], width: int, style: str) -> Text:
    if not width:
        return Text()
    return Text.assemble((sparkline(values, width), style), " ")


def _load(model: ModelTrend) -> tuple[Text, Text]:
    if not model.workers:
        return Text("-", style="dim"), Text("-", style="dim")
    memory = Text(bytes_text(model.rss_bytes), style="dim")
    return Text(f"{model.cpu_percent:.0f} %", style="dim white"), memory


def _rate(model: ModelTrend, *, second: bool) -> Text:
    rate = model.requests_per_second
    text = Text(count_text(round(rate)) if rate >= 10 or not rate else f"{rate:.1f}")
    if model.errors_per_second:
        bad = f"{model.errors_per_second:.1f} bad"
        text.append(f"\n{bad}" if second else f" ({bad})", style="yellow")
    return text


def _stages(model: ModelTrend) -> Text:
    if not model.stages_ms:
        return Text("-", style="dim")
    values = (milliseconds_text(model.stages_ms.get(stage, 0.0)) for stage in STAGES)
    return Text(" ".join(f"{value:>4}" for value in values))
