"""How requests share runs of a graph: who goes together, how long the first one waits.

Pure: no clock and no tensors. A request is known here by its rows along axis 0 and by a signature,
which is equal for those that fit into one run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from superbrain.domain.manifest import Batching

# What a peer is told to have outstanding: one request is executed, the next are at hand when it
# ends. Of a fast model as many as two milliseconds of work, so that they travel together.
LEAST_WINDOW: Final = 2
MOST_WINDOW: Final = 32
WINDOW_MS: Final = 2.0


class Part(NamedTuple):
    """What one request brings into a batch; without a signature it runs by itself."""

    signature: Hashable | None
    rows: int


def partition(parts: Sequence[Part], max_size: int) -> list[list[int]]:
    """Group requests into runs of at most `max_size` rows.

    Args:
        parts: one for each request, in the order of their turn.
        max_size: rows of one run; a request that brings more runs by itself.

    Returns:
        Positions in `parts`, each once; groups in the order of their first request.
    """
    groups: list[list[int]] = []
    open_groups: dict[Hashable, tuple[list[int], int]] = {}
    for position, (signature, rows) in enumerate(parts):
        group, filled = open_groups.get(signature, ([], 0))
        if signature is None or not group or filled + rows > max_size:
            group, filled = [], 0
            groups.append(group)
        group.append(position)
        if signature is not None:
            open_groups[signature] = (group, filled + rows)
    return groups


class Patience:
    """How long the first waiting request is held for others to join it.

    A lone request on an idle worker never waits when `adaptive`: callers who have just been
    answered together are likely to ask again together, and only for as many of them is held on.
    """

    def __init__(self, batching: Batching) -> None:
        self.max_size = batching.max_size
        self._delay_ns = batching.max_delay_ms * 1_000_000 if batching.max_size > 1 else 0
        self._adaptive = batching.adaptive
        self._last_size = 1
        self._last_end_ns = 0

    @property
    def ever_waits(self) -> bool:
        """Whether any request is ever held."""
        return self._delay_ns > 0

    def hold_until_ns(self, waiting: int, oldest_ns: int, earliest_deadline_ns: int) -> int:
        """Say until when to wait for more; 0 for "execute now".

        Args:
            waiting: how many requests wait.
            oldest_ns: when the first of them came.
            earliest_deadline_ns: none of them expires before.
        """
        until_ns = oldest_ns + self._delay_ns
        if waiting >= self._expected(oldest_ns) or earliest_deadline_ns <= until_ns:
            return 0
        return until_ns

    def _expected(self, oldest_ns: int) -> int:
        if not self._adaptive:
            return self.max_size
        if oldest_ns - self._last_end_ns > self._delay_ns:
            return 1
        return self._last_size

    def executed(self, size: int, now_ns: int) -> None:
        """Take note of how many were executed together, and when that ended."""
        self._last_size = size
        self._last_end_ns = now_ns


def window(execution_ms: float, max_size: int) -> int:
    """Say how many requests a peer should have outstanding at a worker.

    Args:
        execution_ms: how long one request takes; 0.0 for "not known".
        max_size: how many share a run; while one batch runs, the next gathers.
    """
    least = LEAST_WINDOW * max_size
    if execution_ms <= 0:
        return least
    return max(least, min(math.ceil(WINDOW_MS / execution_ms), MOST_WINDOW))
