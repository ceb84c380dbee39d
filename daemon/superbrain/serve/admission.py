"""One bounded queue for requests: highest priority first, then first come, first served.

Pure: the clock is passed in. Worker and gateway use the same one, so that waiting means the same
wherever a request waits. An expired request is handed out by `expired`, never by `take`, as long
as the caller asks in that order with the same `now_ns`.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Generic, TypeVar

from superbrain.wire.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

NEVER_NS = 1 << 63


class AdmissionQueue(Generic[T]):
    """Requests that wait: at most `size`, ordered by (priority descending, arrival)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[int, int, int, T]] = []
        self._earliest_ns = NEVER_NS

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """Go through what waits, in no particular order."""
        return (entry[3] for entry in self._heap)

    @property
    def earliest_deadline_ns(self) -> int:
        """No waiting request expires before this; `NEVER_NS` when none ever does."""
        return self._earliest_ns if self._heap else NEVER_NS

    def push(self, item: T, *, arrival: int, priority: int = 0, deadline_ns: int = 0) -> None:
        """Let `item` wait.

        Args:
            item: the request.
            arrival: a number that is unique and rises with every arrival.
            priority: higher is served first.
            deadline_ns: when it expires; 0 for never.

        Raises:
            ResourceExhausted: the queue is full.
        """
        if len(self._heap) >= self.size:
            raise ResourceExhausted(
                f"expected at most {self.size} waiting requests, found as many waiting already",
                mend="Send fewer at a time, or try again a little later",
            )
        self.put_back(item, arrival=arrival, priority=priority, deadline_ns=deadline_ns)

    def put_back(self, item: T, *, arrival: int, priority: int = 0, deadline_ns: int = 0) -> None:
        """Let `item`, accepted earlier, wait again at its old place; it is never refused."""
        deadline_ns = deadline_ns or NEVER_NS
        self._earliest_ns = min(self._earliest_ns, deadline_ns)
        heapq.heappush(self._heap, (-priority, arrival, deadline_ns, item))

    def first(self) -> T | None:
        """Show whose turn it is, without taking it."""
        return self._heap[0][3] if self._heap else None

    def take(self) -> T:
        """Take whose turn it is; the queue must not be empty."""
        item = heapq.heappop(self._heap)[3]
        if not self._heap:
            self._earliest_ns = NEVER_NS
        return item

    def expired(self, now_ns: int) -> list[T]:
        """Take out every request whose deadline has passed."""
        if now_ns < self._earliest_ns:
            return []
        late = [entry[3] for entry in self._heap if entry[2] <= now_ns]
        self._keep([entry for entry in self._heap if entry[2] > now_ns])
        return late

    def withdraw(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out every request that `unwanted` says so of."""
        verdicts = [unwanted(entry[3]) for entry in self._heap]
        if not any(verdicts):
            return []
        judged = list(zip(self._heap, verdicts, strict=True))
        self._keep([entry for entry, gone in judged if not gone])
        return [entry[3] for entry, gone in judged if gone]

    def clear(self) -> list[T]:
        """Take out everything, in order."""
        items = [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[:2])]
        self._keep([])
        return items

    def _keep(self, entries: list[tuple[int, int, int, T]]) -> None:
        heapq.heapify(entries)
        self._heap = entries
        self._earliest_ns = min((entry[2] for entry in entries), default=NEVER_NS)
