"""A load test as people read it in a terminal: a row for each step, a plot, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from superbrain.cli.load.figures import Step
from superbrain.cli.load.plot import scatter

_LEFT_OUT_FIRST = ("daemon", "mean", "p99.9", "gateway", "host", "p90", "max")


class LoadReport(msgspec.Struct, frozen=True):
    """All that a load test found; what `--json` prints.

    `slo` is empty and `best_rate` None where none was asked for; `unwatched` says why there are no
    figures of the appliance's processes.
    """

    model: str
    versions: list[str]
    machine: str
    road: str
    request_bytes: int
    cases: int
    steps: list[Step]
    advice: list[str]
    slo: str = ""
    best_rate: float | None = None
    unwatched: str = ""
    interrupted: bool = False


class Column(NamedTuple):
    """A column of the table: `cell` writes what stands in it."""

    title: str
    cell: Callable[[Step], str]


def columns(steps: Sequence[Step]) -> list[Column]:
    """Give the columns that have something to show."""
    shown = [Column("callers", lambda step: str(step.plan.callers))]
    if any(step.plan.rate for step in steps):
        shown = [Column("load", _load)]
    shown += [
        Column("requests/s", lambda step: f"{step.throughput:,.0f}"),
        Column("mean", lambda step: milliseconds(step.latency_ms.mean)),
        Column("p50", lambda step: milliseconds(step.latency_ms.p50)),
        Column("p90", lambda step: milliseconds(step.latency_ms.p90)),
        Column("p99", lambda step: milliseconds(step.latency_ms.p99)),
        Column("p99.9", lambda step: milliseconds(step.latency_ms.p999)),
        Column("max", lambda step: milliseconds(step.latency_ms.max)),
        Column("errors", lambda step: f"{step.failed:,}"),
    ]
    for role in ("worker", "gateway", "daemon"):
        if any(step.usage for step in steps):
            shown.append(Column(role, lambda step, role=role: f"{step.cores(role):.2f}"))  # type: ignore[misc]
    shown.append(Column("asking", lambda step: f"{step.generator_cores:.2f}"))
    shown.append(Column("host", lambda step: f"{step.host_cores_busy:.2f}"))
    if any(step.gpu_percent is not None for step in steps):
        shown.append(Column("GPU %", lambda step: f"{step.gpu_percent or 0:.0f}"))
    return shown


def report_text(report: LoadReport, *, width: int) -> str:
    """Write the whole report."""
    return "\n".join(_parts(report, width))


def head(report: LoadReport) -> str:
    """Say what was tested, in a line."""
    versions = ", ".join(report.versions) or "no answer"
    cases = f"{report.cases} golden cases, " if report.cases > 1 else ""
    size = size_text(report.request_bytes)
    return f"{report.model} {versions}  {cases}{size} a request  {report.road}"


def _parts(report: LoadReport, width: int) -> Iterator[str]:
    yield head(report)
    yield report.machine
    yield ""
    if report.interrupted:
        yield "interrupted: this is what was measured until then"
    yield from table(report.steps, width)
    yield ""
    yield "latencies in milliseconds; worker to host: processor cores busy, of 1.00 each"
    if report.unwatched:
        yield f"no figures of the appliance's processes: {report.unwatched}"
    else:
        yield from _memory(report.steps)
    answered = [step for step in report.steps if step.requests]
    if len(answered) > 1:
        yield ""
        yield plot(answered, width)
    if report.advice:
        yield ""
        yield from (f"- {sentence}" for sentence in report.advice)


def table(steps: Sequence[Step], width: int) -> list[str]:
    """Write the rows, numbers to the right; where it is narrow, without the least telling ones."""
    shown = columns(steps)
    lines = _aligned(shown, steps)
    for title in _LEFT_OUT_FIRST:
        if len(lines[0]) <= width:
            break
        shown = [column for column in shown if column.title != title]
        lines = _aligned(shown, steps)
    return lines


def _aligned(shown: Sequence[Column], steps: Sequence[Step]) -> list[str]:
    rows = [
        [column.title for column in shown],
        *([column.cell(step) for column in shown] for step in steps),
    ]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def plot(steps: Sequence[Step], width: int) -> str:
    """Draw latency against throughput."""
    series = {
        "m": [(step.throughput, step.latency_ms.p50) for step in steps],
        "9": [(step.throughput, step.latency_ms.p99) for step in steps],
    }
    return scatter(
        series,
        x_label="requests/s",
        y_label="latency in ms: m median, 9 99th percentile",
        width=max(20, min(70, width - 12)),
    )


def milliseconds(value: float) -> str:
    """Write a latency with about three digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def size_text(count: int) -> str:
    """Write a number of bytes with a unit."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e3:.3g} KB" if count < 1_000_000 else f"{count / 1e6:.3g} MB"


def _load(step: Step) -> str:
    return f"{step.plan.rate:,.0f}/s" if step.plan.rate else f"{step.plan.callers} callers"


def _memory(steps: Sequence[Step]) -> Iterator[str]:
    if steps and steps[-1].usage:
        told = (f"{one.name} {size_text(one.memory_bytes)}" for one in steps[-1].usage)
        yield f"memory at the end: {', '.join(told)}"
