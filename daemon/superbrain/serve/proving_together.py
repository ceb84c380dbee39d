"""Proving that requests may share runs: golden cases mixed, at different places of the batch.

The answers must be as near to the recorded ones as those of a case by itself. A graph whose answers
depend on batch mates (one that is quantised dynamically, or normalises over the batch) fails here.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING

import msgspec

from superbrain.domain.golden import compare_all, failed
from superbrain.domain.manifest import BATCH_ROUNDS
from superbrain.domain.proof import EVERY_OUTPUT, OutputFigures
from superbrain.domain.rungs import tolerances_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from superbrain.domain.manifest import Manifest, Tolerance
    from superbrain.serve.together import Arrays, Together

_ADVICE = "set serving.batching.max_size = 1"


def prove_together(
    together: Together,
    manifest: Manifest,
    recorded: Mapping[str, tuple[Arrays, Arrays]],
    rung: str,
) -> list[OutputFigures]:
    """Run all cases in mixed batches and compare; never raises because of a case.

    Args:
        together: answers them.
        manifest: has the tolerances and the size of a batch.
        recorded: request and response of every case that agreed when it ran by itself.
        rung: that the model runs on.

    Returns:
        Of every case and output the figures that were worst in any batch.
    """
    if len(recorded) < 2:  # the case that did not agree says more
        return []
    tolerances = tolerances_on(manifest.golden, rung)
    worst: dict[tuple[str, str], OutputFigures] = {}
    mixed = False
    for turn in range(BATCH_ROUNDS):
        cases = list(recorded)[:: -1 if turn % 2 else 1]
        count = max(len(cases), manifest.serving.batching.max_size)
        cases = list(islice(cycle(cases), count))
        groups, figures = _run(together, tolerances, recorded, cases)
        mixed |= any(len({cases[n] for n in group}) > 1 for group in groups)
        for one in figures:
            known = worst.setdefault((one.case, one.output), one)
            if _badness(one) > _badness(known):
                worst[one.case, one.output] = one
    return [*worst.values(), *_shortcomings(together, mixed=mixed)]


def _run(
    together: Together,
    tolerances: Mapping[str, Tolerance],
    recorded: Mapping[str, tuple[Arrays, Arrays]],
    cases: Sequence[str],
) -> tuple[list[Sequence[int]], list[OutputFigures]]:
    """Answer cases together; give which shared a run, and the figures of those."""
    groups: list[Sequence[int]] = []

    def executing(positions: Sequence[int]) -> None:
        if len(positions) > 1:
            groups.append(positions)

    answers = together.answer([recorded[case][0] for case in cases], executing)
    figures: list[OutputFigures] = []
    for group in groups:
        for position in group:
            case, answer = cases[position], answers[position]
            compared = _compare(tolerances, case, recorded[case][1], answer)
            figures += (msgspec.structs.replace(one, batch=len(group)) for one in compared)
    return groups, figures


def _compare(
    tolerances: Mapping[str, Tolerance],
    case: str,
    expected: Arrays,
    answer: Arrays | BaseException,
) -> Iterator[OutputFigures]:
    if isinstance(answer, BaseException):
        yield failed(case, EVERY_OUTPUT, "", f"{answer}; alone it agrees: {_ADVICE}")
        return
    for one in compare_all(case, "", expected, answer, tolerances):
        if one.passed:
            yield one
        else:
            yield msgspec.structs.replace(one, reason=f"{one.reason}; alone it agrees: {_ADVICE}")


def _badness(figures: OutputFigures) -> tuple[bool, float]:
    return not figures.passed, figures.max_abs_error or 0.0


def _shortcomings(together: Together, *, mixed: bool) -> Iterator[OutputFigures]:
    """Say what kept the batches from proving anything."""
    if together.failure:
        yield failed(
            "batches",
            EVERY_OUTPUT,
            "",
            f"expected a shared run, found {together.failure}; {_ADVICE}",
        )
    elif not mixed:
        yield failed(
            "batches",
            EVERY_OUTPUT,
            "",
            f"expected two golden cases whose graph inputs differ in the first dimension only, "
            f"found none to run together; record one, or {_ADVICE}",
        )
