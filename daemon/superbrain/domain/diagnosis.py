"""The diagnosis of a host: one finding a line, each with a verdict and, where one helps, a mend.

    ok        as it should be
    note      worth knowing: something is missing or could be better, and nothing fails for it
    problem   models are not served, or less well or less safely than this host could

`superbrain doctor --json` prints it whole. Programs go by `id` and `verdict`, which keep their
meaning; `found` and `mend` are sentences for people.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

import msgspec

from superbrain.domain.health import GpuFacts

Verdict = Literal["ok", "note", "problem"]
VERDICTS: Final[tuple[Verdict, ...]] = ("ok", "note", "problem")


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at (`id` for programs, `subject` for people) and what was found."""

    id: str
    subject: str
    verdict: Verdict
    found: str
    mend: str = ""


class Section(msgspec.Struct, frozen=True):
    """Findings that belong together."""

    name: str
    findings: list[Finding]


class RungFinding(msgspec.Struct, frozen=True):
    """Whether this host can make engines of a rung; `why_not` in a sentence, empty when it can."""

    rung: str
    possible: bool
    why_not: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything that was found; `verdict` is the worst of all findings."""

    at: dt.datetime
    version: str
    hostname: str
    user: str
    verdict: Verdict
    sections: list[Section]
    rungs: list[RungFinding]
    gpus: list[GpuFacts]
    schema: int = 1


def worst(sections: list[Section]) -> Verdict:
    """Give the worst verdict of all findings."""
    found = {finding.verdict for section in sections for finding in section.findings}
    return max(found, key=VERDICTS.index, default="ok")


def ok(name: str, subject: str, found: str) -> Finding:
    """Make a finding that is as it should be."""
    return Finding(name, subject, "ok", found)


def note(name: str, subject: str, found: str, mend: str = "") -> Finding:
    """Make a finding that is worth knowing."""
    return Finding(name, subject, "note", found, mend)


def problem(name: str, subject: str, found: str, mend: str) -> Finding:
    """Make a finding that has to be mended."""
    return Finding(name, subject, "problem", found, mend)
