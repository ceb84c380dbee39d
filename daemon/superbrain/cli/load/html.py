"""A load test as one HTML file: no scripts, nothing fetched, to be sent or put into a wiki."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from string import Template

from superbrain.cli.load.figures import Step
from superbrain.cli.load.text import LoadReport, columns, head, milliseconds

_WIDTH, _HEIGHT, _MARGIN = 640, 320, 48
_COLOURS = {"p50": "#1b7f5c", "p90": "#c98a00", "p99": "#b3261e"}
_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
svg text { font: 12px system-ui, sans-serif; fill: #444; }
.dim { color: #666; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$head<br><span class="dim">$machine</span></p>
$plot
$table
<p class="dim">Latencies in milliseconds; worker to host: processor cores busy. $note</p>
<ul>
$advice
</ul>
</body>
</html>
""")


def report_html(report: LoadReport) -> str:
    """Write the report as a page."""
    answered = [step for step in report.steps if step.requests]
    return _PAGE.substitute(
        title=escape(f"Load test of {report.model}"),
        head=escape(head(report)),
        machine=escape(report.machine),
        plot=_svg(answered) if answered else "",
        table=_table(report.steps),
        note=escape(report.unwatched),
        advice="\n".join(f"<li>{escape(sentence)}</li>" for sentence in report.advice),
    )


def _table(steps: Sequence[Step]) -> str:
    shown = columns(steps)
    rows = ["".join(f"<th>{escape(column.title)}</th>" for column in shown)]
    rows += ["".join(f"<td>{escape(column.cell(step))}</td>" for column in shown) for step in steps]
    return "<table>\n" + "\n".join(f"<tr>{row}</tr>" for row in rows) + "\n</table>"


def _svg(steps: Sequence[Step]) -> str:
    """Draw latency (logarithmic) against throughput."""
    return "\n".join(
        (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="latency by throughput">',
            *_drawn(sorted(steps, key=lambda step: step.throughput)),
            "</svg>",
        )
    )


def _drawn(steps: Sequence[Step]) -> Iterator[str]:
    most = max(step.throughput for step in steps)
    values = [step.latency_ms.quantile(name) for step in steps for name in _COLOURS]
    low, high = math.log10(min(values)) - 0.1, math.log10(max(values)) + 0.1

    def x_of(step: Step) -> float:
        return _MARGIN + step.throughput / most * (_WIDTH - 2 * _MARGIN)

    def y_of(value: float) -> float:
        return (
            _HEIGHT - _MARGIN - (math.log10(value) - low) / (high - low) * (_HEIGHT - 2 * _MARGIN)
        )

    bottom = _HEIGHT - _MARGIN
    yield f'<path d="M{_MARGIN} {_MARGIN}V{bottom}H{_WIDTH - _MARGIN}" fill="none" stroke="#888"/>'
    for number, (name, colour) in enumerate(_COLOURS.items()):
        points = [(x_of(step), y_of(step.latency_ms.quantile(name))) for step in steps]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for step, (x, y) in zip(steps, points, strict=True):
            latency = milliseconds(step.latency_ms.quantile(name))
            told = f"<title>{step.throughput:,.0f}/s, {name} {latency} ms</title>"
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">{told}</circle>'
        yield f'<text x="{_MARGIN + 60 * number}" y="24" style="fill: {colour}">{name}</text>'
    end = f'x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 16}" text-anchor="end"'
    yield f"<text {end}>{most:,.0f} requests/s</text>"
    for value in (min(values), max(values)):
        yield f'<text x="4" y="{y_of(value) + 4:.1f}">{milliseconds(value)}</text>'
