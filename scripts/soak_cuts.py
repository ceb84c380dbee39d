"""`scripts/soak --cuts`: every story of tests/support/cuts.py, killed before each operation."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.appliance import Appliance
from tests.support.cuts import STORIES, CutStage

EVERY = 20  # operations, some half a minute


def every_cut(appliance: Appliance, say: Callable[[str], None]) -> list[str]:
    """Make all cuts, a line for each story; what was found wrong.

    Args:
        appliance: not started.
        say: gets the lines.
    """
    findings: list[str] = []
    stage = CutStage(appliance)
    say(f"{'story':<20}{'operations':>12}{'killed':>8}{'wrong':>7}  what must follow")
    for story in STORIES:
        count, killed, before = stage.count(story), 0, len(findings)
        for number in range(1, count + 1):
            try:
                killed += stage.cut(story, number)
            except AssertionError as error:
                findings.append(f"{story.name}, operation {number}: {str(error)[:2000]}")
                return findings  # where the stage stands now is not known
            if number % EVERY == 0:
                say(f"  {story.name}: {number} of {count} operations cut")
        wrong = len(findings) - before
        say(f"{story.name:<20}{count:>12}{killed:>8}{wrong:>7}  {story.must}")
    return findings
