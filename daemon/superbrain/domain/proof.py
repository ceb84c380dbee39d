"""Proof: the recorded result of running every golden case on one engine on this host."""

from __future__ import annotations

from typing import Final

import msgspec

from superbrain.domain.told import Count, Name, Span, shorten

# How the tolerance that allows no difference is written; labels and text have no other.
EXACT: Final = "exact"
# Stands for the output when a case failed before it had any.
EVERY_OUTPUT: Final = "*"


class OutputFigures(msgspec.Struct, frozen=True):
    """How far one output of one case was from what is expected.

    Figures are None where they have no meaning (strings, or a tensor that could not be compared);
    `graph` is empty for the response of the whole pipeline; `reason` is empty when `passed`.
    `batch`: how many requests shared the run, 0 for a case by itself.
    """

    case: str
    output: str
    graph: str
    passed: bool
    tolerance: str
    reason: str = ""
    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cosine: float | None = None
    batch: Count = 0

    def __post_init__(self) -> None:
        """Keep the reason as long as a person reads."""
        shorten(self, "reason")

    @property
    def sentence(self) -> str:
        """Which output of which case it is, and why it failed."""
        where = [f"case {self.case!r}"]
        if self.graph:
            where.append(f"graph {self.graph!r}")
        if self.batch:
            where.append(f"in a batch of {self.batch}")
        if self.output != EVERY_OUTPUT:
            where.append(f"output {self.output!r}")
        return f"{', '.join(where)}: {self.reason}"


class CaseTime(msgspec.Struct, frozen=True):
    """Wall time of one golden case through the whole pipeline, in milliseconds; warm if fast."""

    case: str
    milliseconds: Span


class Timing(msgspec.Struct, frozen=True):
    """How long a golden request took in a warm process, over `rounds` of all cases.

    Of each round the mean over its cases counts; these are the median of the rounds, the fastest
    and the slowest.
    """

    rounds: Count
    median_ms: Span
    fastest_ms: Span
    slowest_ms: Span


class Proof(msgspec.Struct, frozen=True):
    """Every figure of one proof run on one rung; it passed when every output of every case did.

    `timing` is there where the rung was timed to be compared with others.
    """

    rung: str
    figures: list[OutputFigures]
    times: list[CaseTime]
    runtime: Name = ""
    timing: Timing | None = None

    @property
    def passed(self) -> bool:
        """True when there was something to compare and all of it agreed."""
        return bool(self.figures) and all(figure.passed for figure in self.figures)

    @property
    def failures(self) -> list[OutputFigures]:
        """Every disagreement, case by case; in each, labels and text before numbers.

        `expected 'cat', found 'dog'` says more than how far off a confidence is.
        """
        failed = [figure for figure in self.figures if not figure.passed]
        order = {case: at for at, case in enumerate(dict.fromkeys(one.case for one in failed))}
        return sorted(failed, key=lambda one: (order[one.case], one.tolerance != EXACT))

    @property
    def first_failure(self) -> str:
        """The most telling disagreement of the first case that has one; empty when all agreed."""
        if not self.figures:
            return "no golden case produced anything to compare"
        failures = self.failures
        return failures[0].sentence if failures else ""
