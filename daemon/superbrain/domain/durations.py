"""How long requests took, as histograms that can be added up: over workers, over their successors.

Counted where it happened, in the worker and the gateway, in whole nanoseconds. What leaves a
process is a `Histogram`; the daemon adds up how much it has grown since it was asked before, so a
process that begins at zero takes nothing away.

A worker's request passes four stages, and they add up to the time from its arrival to its answer:

| stage | from … to |
|---|---|
| queue | its arrival in the worker … the beginning of its execution |
| preprocess | … the first run of a graph: decoding, checks, the bundle's preprocess |
| engine | the time within runs of graphs |
| postprocess | the rest: the bundle's code between and behind runs, encoding the answer |

Requests that are executed together share the last three.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from superbrain.domain.told import Count, Nanoseconds

Stage = Literal["queue", "preprocess", "engine", "postprocess"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

# The upper bounds of the buckets, each included in its own; one more bucket has no bound.
BOUNDS_NS: Final = tuple(
    round(milliseconds * 1_000_000)
    for milliseconds in (
        *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0),
        *(100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0),
    )
)


class Histogram(msgspec.Struct, frozen=True):
    """How many durations fell into each bucket, and all of them together.

    `counts` are per bucket, not cumulative: one for each of `BOUNDS_NS` and one for what is longer.
    Empty when nothing was counted.
    """

    counts: list[Count] = []
    sum_ns: Nanoseconds = 0

    @property
    def count(self) -> int:
        """How many durations there are."""
        return sum(self.counts)


def check_buckets(histogram: Histogram) -> None:
    """Refuse what cannot be added to others.

    Raises:
        ValueError: it has neither no buckets, nor one more than there are bounds.
    """
    if histogram.counts and len(histogram.counts) != len(BOUNDS_NS) + 1:
        msg = f"expected {len(BOUNDS_NS) + 1} buckets or none, found {len(histogram.counts)}"
        raise ValueError(msg)


def plus_growth(total: Histogram, now: Histogram, before: Histogram) -> Histogram:
    """Add to `total` what has come between `before` and `now`."""
    if not now.counts:
        return total
    past = before.counts or [0] * len(now.counts)
    grown = [after - earlier for after, earlier in zip(now.counts, past, strict=True)]
    so_far = total.counts or [0] * len(grown)
    counts = [one + more for one, more in zip(so_far, grown, strict=True)]
    return Histogram(counts, total.sum_ns + now.sum_ns - before.sum_ns)
