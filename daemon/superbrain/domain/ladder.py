"""The ladder: which rung is tried next, and which of those that proved is to serve.

With `select = "first"` rungs are tried in the manifest's order and the first that proves serves.
With "fastest" every rung is tried; each that proves is timed on this host and lets go of its memory
again, and at the end the fastest is built and proven once more to serve, unless it is the one that
is loaded. Should it fail then, the next fastest follows.

Everything here is worked out from what was written down, so a kill at any instant loses at most the
rung that was being tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superbrain.domain.deployment import RungOutcome
    from superbrain.domain.manifest import Select


def noted(outcomes: Sequence[RungOutcome], outcome: RungOutcome) -> tuple[RungOutcome, ...]:
    """Add an outcome; what the same rung did before no longer counts."""
    return (*(one for one in outcomes if one.rung != outcome.rung), outcome)


def next_rung(
    ladder: Sequence[str], at: int, select: Select, outcomes: Sequence[RungOutcome]
) -> int | None:
    """Give the rung to build after the one `at`, whose outcome is known.

    None when there is no other: what is loaded serves, or nothing does.
    """
    if select == "first":
        return at + 1 if at + 1 < len(ladder) else None
    known = {one.rung for one in outcomes}
    untried = [index for index, rung in enumerate(ladder) if rung not in known]
    if untried:
        return untried[0]
    fastest = _by_speed(ladder, outcomes)[:1]
    return fastest[0] if fastest and fastest[0] != at else None


def fallbacks(
    ladder: Sequence[str], at: int, select: Select, outcomes: Sequence[RungOutcome]
) -> tuple[int, ...]:
    """Give the rungs on which to bring back what served on the one `at`, that one first.

    Then the later ones; with "fastest" those that proved by their speed, then all others.
    """
    if select == "first":
        return tuple(range(at, len(ladder)))
    return tuple(dict.fromkeys((at, *_by_speed(ladder, outcomes), *range(len(ladder)))))


def _by_speed(ladder: Sequence[str], outcomes: Sequence[RungOutcome]) -> list[int]:
    """Give the rungs that proved and were timed by speed; equals in the ladder's order."""
    times = {
        one.rung: one.milliseconds
        for one in outcomes
        if one.reason is None and one.milliseconds is not None
    }
    timed = [(times[rung], index) for index, rung in enumerate(ladder) if rung in times]
    return [index for _, index in sorted(timed)]
