"""A tally's buffer as compiled code sees it: native integers, the number of rows first."""

from __future__ import annotations

from collections.abc import Sequence

from superbrain.serve.tally import ROWS, Tally

FIELDS = 6


def rows_of(room: bytearray) -> list[tuple[int, ...]]:
    """Give the rows that are there."""
    numbers = memoryview(room).cast("q")
    return [tuple(numbers[1 + row * FIELDS : 1 + (row + 1) * FIELDS]) for row in range(numbers[0])]


def leave(tally: Tally, row: Sequence[int]) -> None:
    """Leave one row, as whoever writes does."""
    numbers = memoryview(tally.room).cast("q")
    filled = numbers[0]
    for field, number in enumerate(row):
        numbers[1 + filled * FIELDS + field] = number
    numbers[0] = filled + 1
    if filled + 1 == ROWS:
        tally.full()
