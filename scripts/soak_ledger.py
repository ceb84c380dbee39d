"""What a soak did to its appliance and when, so that every error can be held against it.

Two errors may be right, and only where the harness itself is to blame for them:

- A request that ends two workers is answered with an error, for it cannot be told from one that
  kills. It is explained when two kills that end workers fell between its question and its answer.
- A client that connects while nobody listens is told so. It is explained when it asked after
  gateway or daemon were ended and before the socket was seen to take connections again.

Everything else that is no answer is lost.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from tests.support.load import Load, Span

WORKERS_DIE = frozenset({"worker killed", "daemon killed", "daemon killed in its start"})
KILLS = frozenset({*WORKERS_DIE, "gateway killed", "fork server killed"})
ENDS = KILLS | {"daemon restarted"}
ANSWERED_AFTER_S = 0.05
SOONER_S = 0.5  # a socket may vanish before a death is noted, and come back before it is seen


class Deed(msgspec.Struct, frozen=True):
    """Something done to the appliance, from its beginning until it answered again."""

    what: str
    begin: float
    end: float


class Ledger:
    """All deeds of a soak."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.orphans = 0
        self.versions_lost = 0
        self._deeds: list[Deed] = []
        self._deaf: list[Span] = []
        self._deaf_since: float | None = None

    @property
    def kills(self) -> int:
        """How many SIGKILLs were sent."""
        return sum(count for what, count in self.done.items() if what in KILLS)

    def deaf(self, begin: float) -> None:
        """Note that since `begin` nobody may listen any more."""
        if self._deaf_since is None:
            self._deaf_since = begin

    def hears(self) -> None:
        """Note that somebody listens."""
        if self._deaf_since is not None:
            self._deaf.append(Span(self._deaf_since, time.monotonic()))
            self._deaf_since = None

    def enter(self, what: str, begin: float) -> None:
        """Note what has been done since `begin`."""
        self.done[what] += 1
        self._deeds.append(Deed(what, begin, time.monotonic()))

    def explained(self, failure: Span) -> bool:
        """Tell whether the harness itself is to blame for an error."""
        if "ended 2 workers" in failure.error:
            deadly = (deed for deed in self._deeds if deed.what in WORKERS_DIE)
            return sum(_overlap(deed, failure) for deed in deadly) >= 2
        if "no superbrain gateway answers" in failure.error:
            return any(_overlap(span, failure, SOONER_S) for span in self._deaf)
        return False

    def lost(self, load: Load) -> list[Span]:
        """Give the requests that have no right answer and no explanation."""
        return [failure for failure in load.failures if not self.explained(failure)]

    def table(self, load: Load) -> list[str]:
        """Give what was done how often, the worst gap beside it, and what became of requests."""
        gaps = self._worst_gaps(load.gaps)
        lines = [f"{'':<28}{'times':>8}{'worst gap s':>14}"]
        for what in sorted(self.done):
            gap = f"{gaps.pop(what):.2f}" if what in gaps else "-"
            lines.append(f"{what:<28}{self.done[what]:>8}{gap:>14}")
        lines += [f"{what:<28}{'':>8}{gap:>14.2f}" for what, gap in gaps.items()]
        lost = len(self.lost(load))
        worst = max((gap.seconds for gap in load.gaps), default=0.0)
        return [
            *lines,
            "",
            f"{'SIGKILLs':<28}{self.kills:>8}",
            f"{'answers':<28}{load.answered:>8}",
            f"{'wrong':<28}{len(load.mixed):>8}",
            f"{'lost':<28}{lost:>8}",
            f"{'told that two kills hit it':<28}{self._told(load, 'ended 2 workers'):>8}",
            f"{'told that nobody listens':<28}{self._told(load, 'no superbrain gateway'):>8}",
            f"{'orphans':<28}{self.orphans:>8}",
            f"{'versions lost':<28}{self.versions_lost:>8}",
            f"{'worst gap s':<28}{worst:>8.2f}",
        ]

    def _told(self, load: Load, words: str) -> int:
        return sum(words in failure.error and self.explained(failure) for failure in load.failures)

    def _worst_gaps(self, gaps: Sequence[Span]) -> dict[str, float]:
        """Give the longest time without an answer for each deed that ends something, by itself."""
        worst: dict[str, float] = {}
        for gap in gaps:
            hit = {deed.what for deed in self._deeds if deed.what in ENDS and _touches(deed, gap)}
            (what,) = hit if len(hit) == 1 else {"several of these at once" if hit else "none"}
            worst[what] = max(worst.get(what, 0.0), gap.seconds)
        return worst


def _touches(deed: Deed, gap: Span) -> bool:
    """Tell whether a deed fell into a gap; what was under way may still be answered after it."""
    return deed.begin <= gap.end and deed.end + ANSWERED_AFTER_S >= gap.begin


def _overlap(one: Deed | Span, other: Span, more_s: float = 0.0) -> bool:
    return one.begin - more_s <= other.end and one.end + more_s >= other.begin
