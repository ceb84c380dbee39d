"""How a diagnosis looks: sections, one finding a line, the mend below it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.text import Text

from superbrain.cli.display import arrow, heading, plain_table, state_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from superbrain.domain.diagnosis import Diagnosis, Finding, Section


def doctor_view(console: Console, diagnosis: Diagnosis) -> RenderableType:
    """Show everything; what has to be done is said again at the end, in one line."""
    width = max(len(one.subject) for part in diagnosis.sections for one in part.findings)
    return Group(*_parts(console, diagnosis, width))


def _parts(console: Console, diagnosis: Diagnosis, width: int) -> Iterator[RenderableType]:
    line = Text(f"superbrain {diagnosis.version}", style="bold")
    line.append(f" on {diagnosis.hostname}, asked by {diagnosis.user}", style="not bold")
    yield line
    for section in diagnosis.sections:
        yield heading(section.name)
        yield _table(console, section, width)
    yield Text()
    yield _summary(console, diagnosis)


def _table(console: Console, section: Section, width: int) -> Table:
    table = plain_table(console)
    table.show_header = False
    table.add_column(no_wrap=True, min_width=len("problem") + 2)
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(ratio=1)
    for finding in section.findings:
        table.add_row(
            state_text(console, finding.verdict), finding.subject, _found(console, finding)
        )
    return table


def _found(console: Console, finding: Finding) -> Text:
    text = Text(finding.found)
    if finding.mend:
        text.append(f"\n{arrow(console)} {finding.mend}", style="bold" if _bad(finding) else "dim")
    return text


def _bad(finding: Finding) -> bool:
    return finding.verdict == "problem"


def _summary(console: Console, diagnosis: Diagnosis) -> Text:
    found = Counter(one.verdict for part in diagnosis.sections for one in part.findings)
    possible = sum(rung.possible for rung in diagnosis.rungs)
    line = state_text(console, diagnosis.verdict)
    problems, notes = found["problem"], found["note"]
    said = [
        f"{problems} problem{'' if problems == 1 else 's'}",
        f"{notes} note{'' if notes == 1 else 's'}",
        f"{possible} of {len(diagnosis.rungs)} rungs possible",
    ]
    line.append(f"  {', '.join(said)}", style="default")
    return line
