"""The plot of `scripts/bench peers`: bars on a logarithmic scale, one group for each question."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.bench_peers import Report

_LEFT, _WIDTH, _LINE = 150, 720, 18
_OURS, _OTHERS = "#1b7f5c", "#9aa5b1"


def plot(report: Report) -> str:
    """Draw latency of one client and throughput of eight, for every model."""
    panels = list(_panels(report))
    height = sum(len(bars) * _LINE + 40 for _, bars in panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        "<style>text { font: 12px system-ui, sans-serif; fill: #333; }</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    top = 0
    for title, bars in panels:
        lines += _panel(title, bars, top)
        top += len(bars) * _LINE + 40
    return "\n".join([*lines, "</svg>", ""])


def _panels(report: Report) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    for model in dict.fromkeys(row.model for row in report.rows):
        alone = [row for row in report.rows if row.model == model and row.clients == 1]
        yield (
            f"{model}: one client, median latency in ms (less is better)",
            sorted(((row.server, row.p50_ms) for row in alone), key=lambda bar: bar[1]),
        )
        eight = [row for row in report.rows if row.model == model and row.clients == 8]
        if eight:
            bars = [(row.server, row.requests_per_second) for row in eight]
            title = f"{model}: eight clients, requests a second (more is better)"
            yield title, sorted(bars, key=lambda bar: -bar[1])


def _panel(title: str, bars: list[tuple[str, float]], top: int) -> Iterator[str]:
    yield f'<text x="8" y="{top + 20}" style="font-weight: 600">{escape(title)}</text>'
    low = math.log10(min(value for _, value in bars)) - 0.3
    high = math.log10(max(value for _, value in bars))
    for number, (name, value) in enumerate(bars):
        y = top + 40 + number * _LINE
        width = (math.log10(value) - low) / max(high - low, 1e-9) * (_WIDTH - _LEFT - 80)
        colour = _OURS if name.startswith("superbrain") else _OTHERS
        yield f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{_LEFT}" y="{y - 11}" width="{width:.1f}" height="13" fill="{colour}"/>'
        told = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        yield f'<text x="{_LEFT + width + 6:.1f}" y="{y}">{told}</text>'
