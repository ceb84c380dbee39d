"""What worker and gateway share in making records: whom to pick, and where records wait.

Nothing here waits or locks. Records wait in a bounded buffer until they are told to the daemon over
the control channel; what finds it full is left out and counted.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from superbrain.domain.ctl import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superbrain.domain.records import RequestRecord

# Of what callers chose, no more than this is told.
LONGEST_NAME: Final = 200
# At most so many, or so much, is encoded at a time: the interpreter's lock is held meanwhile.
TOLD_TOGETHER: Final = 64
_TOLD_BYTES: Final = 1 << 20
_MOST: Final = 2048
_MOST_BYTES: Final = 8 << 20
_RECORD_BYTES: Final = 512  # of a small one, about
_NEVER: Final = 1 << 62


class Picks:
    """Picks a random share of requests for the log, and another for traces, by counting down.

    `left` says at how many requests from now one is picked: a request that is not costs one
    subtraction and one comparison. The gaps between those picked are drawn, not fixed, so that no
    rhythm of the caller's falls in step with them.
    """

    __slots__ = ("_draw", "_gaps", "_shares", "_stride", "left")

    def __init__(self, log_share: float, trace_ratio: float, draw: Callable[[], float]) -> None:
        self._shares = (log_share, trace_ratio)
        self._draw = draw
        self._gaps = [self._gap(share) for share in self._shares]
        self._stride = self.left = min(self._gaps)

    def passed(self) -> tuple[bool, bool]:
        """Count a request; whether it is picked for the log, and for a trace."""
        self.left -= 1
        if self.left > 0:
            return False, False
        stride = self._stride
        hits = [gap == stride for gap in self._gaps]
        self._gaps = [
            self._gap(share) if hit else gap - stride if gap < _NEVER else gap
            for gap, share, hit in zip(self._gaps, self._shares, hits, strict=True)
        ]
        self._stride = self.left = min(self._gaps)
        return hits[0], hits[1]

    def _gap(self, share: float) -> int:
        """Draw how many requests from now the next is picked: a geometric distribution."""
        if share <= 0:
            return _NEVER
        if share >= 1:
            return 1
        return 1 + int(math.log(1.0 - self._draw()) / math.log1p(-share))


class FailureRate:
    """Lets so many failures a second through, and as many at once."""

    __slots__ = ("_at_ns", "_per_s", "_saved")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._saved = max(per_s, 1.0) if per_s > 0 else 0.0
        self._at_ns = 0

    def allows(self, now_ns: int) -> bool:
        """Whether one more may be told now."""
        if self._per_s <= 0:
            return False
        earned = (now_ns - self._at_ns) / 1e9 * self._per_s if self._at_ns else 0.0
        self._saved = min(max(self._per_s, 1.0), self._saved + earned)
        self._at_ns = now_ns
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class RecordBuffer:
    """Records that wait to be told. One thread adds, without a lock; several may take."""

    __slots__ = ("_added", "_left_out", "_left_out_told", "_taken", "_taking", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[RequestRecord, int]] = deque()
        self._added = self._taken = 0  # bytes; each is written by one side alone
        self._left_out = self._left_out_told = 0
        self._taking = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, record: RequestRecord, more_bytes: int = 0) -> None:
        """Let a record wait, if there is room.

        Args:
            record: what is to be told.
            more_bytes: how much of it the caller chose, about.
        """
        size = _RECORD_BYTES + more_bytes
        if len(self._waiting) >= _MOST or self._added - self._taken + size > _MOST_BYTES:
            self.leave_out()
            return
        self._added += size
        self._waiting.append((record, size))

    def leave_out(self) -> None:
        """Count a record that is not made, or has no room."""
        self._left_out += 1

    def take(self) -> Iterator[Records]:
        """Take out what waits, as messages of a few each."""
        while (some := self.take_some()) is not None:
            yield some

    def take_some(self) -> Records | None:
        """Take out a message of a few; None when nothing waits."""
        with self._taking:
            if not self._waiting and self._left_out == self._left_out_told:
                return None
            return self._take_some()

    def _take_some(self) -> Records:
        records: list[RequestRecord] = []
        taken = 0
        while self._waiting and len(records) < TOLD_TOGETHER and taken < _TOLD_BYTES:
            record, size = self._waiting.popleft()
            records.append(record)
            taken += size
        self._taken += taken
        left_out = self._left_out
        told, self._left_out_told = self._left_out_told, left_out
        return Records(records, left_out - told)


def unix_ns(monotonic_ns: int) -> int:
    """Give the time of day of a reading of the monotonic clock."""
    return time.time_ns() - time.monotonic_ns() + monotonic_ns
