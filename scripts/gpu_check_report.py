"""What `scripts/gpu-check` found, as structures and as a Markdown page.

The page says on its first lines whether it is about a GPU at all: a rehearsal shows that the check
works, and nothing about any GPU.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

Outcome = Literal["ok", "failed", "skipped"]
_REHEARSAL: Final = (
    "**This is a rehearsal without a GPU.** The same steps ran on the processor. It shows that the "
    "check itself works, and says nothing about any GPU."
)


class Table(msgspec.Struct, frozen=True):
    """Figures: a head and rows of as many cells."""

    head: list[str]
    rows: list[list[str]]


class Found(msgspec.Struct, frozen=True):
    """What a step found; it has failed for every sentence in `wrong`."""

    tables: list[Table] = []
    notes: list[str] = []
    wrong: list[str] = []


class Step(msgspec.Struct, frozen=True):
    """One step of the check: how it ended, why it was skipped or failed, and its figures."""

    name: str
    title: str
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    found: Found = Found()


class Report(msgspec.Struct, frozen=True):
    """The whole check."""

    at: dt.datetime
    rehearsal: bool
    command: str
    machine: dict[str, str]
    steps: list[Step] = []

    @property
    def failed(self) -> list[str]:
        """The steps that failed."""
        return [step.name for step in self.steps if step.outcome == "failed"]


def markdown(report: Report) -> str:
    """Write the page."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    what = "rehearsal without a GPU" if report.rehearsal else "GPU check"
    yield f"# superbrain {what}"
    yield ""
    if report.rehearsal:
        yield _REHEARSAL
        yield ""
    yield f"{_verdict(report)} {report.at:%Y-%m-%d %H:%M} UTC, `{report.command}`"
    yield ""
    yield from _table(Table(["machine", ""], [[one, said] for one, said in report.machine.items()]))
    rows = [
        [step.title, f"**{step.outcome}**", f"{step.seconds:.0f}", _short(step.reason)]
        for step in report.steps
    ]
    yield from _table(Table(["step", "outcome", "seconds", "why"], rows))
    for step in report.steps:
        yield from _step(step, rehearsal=report.rehearsal)


def _verdict(report: Report) -> str:
    if report.failed:
        return f"**Failed: {', '.join(report.failed)}.**"
    skipped = sum(step.outcome == "skipped" for step in report.steps)
    return f"**Nothing failed, {skipped} of {len(report.steps)} steps were skipped.**"


def _step(step: Step, *, rehearsal: bool) -> Iterator[str]:
    yield f"## {step.title}: {step.outcome}{' (rehearsed)' if rehearsal else ''}"
    yield ""
    if step.reason:
        yield from [step.reason, ""]
    for sentence in (*step.found.wrong, *step.found.notes):
        yield f"- {sentence}"
    if step.found.wrong or step.found.notes:
        yield ""
    for table in step.found.tables:
        yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        return
    yield _row(table.head)
    yield _row(["---"] * len(table.head))
    for row in table.rows:
        yield _row(row)
    yield ""


def _row(cells: Sequence[str]) -> str:
    kept = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(kept)} |"


def _short(text: str, most: int = 120) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
