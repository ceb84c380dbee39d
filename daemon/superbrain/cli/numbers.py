"""Numbers on a command line: what does not fit is refused in words that say what would.

parser.add_argument("--limit", type=whole(1, 10_000))    # expected 1 to 10000, got 'x'
parser.add_argument("--timeout", type=seconds(3600))     # expected seconds between 0 and 3600, …
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def whole(least: int, most: int) -> Callable[[str], int]:
    """Read a whole number."""
    return fitting(int, lambda number: least <= number <= most, f"{least} to {most}")


def seconds(most: float, *, zero: bool = False) -> Callable[[str], float]:
    """Read a time above 0, or from 0 on."""

    def fits(number: float) -> bool:
        return 0 < number <= most or (zero and number == 0)

    return fitting(float, fits, f"seconds between 0 and {most:g}")


def fitting(
    read: Callable[[str], T], fits: Callable[[T], bool], expected: str
) -> Callable[[str], T]:
    """Read what `read` reads, a ValueError or what does not fit as a usage error."""

    def parse(text: str) -> T:
        try:
            found = read(text)
            if fits(found):
                return found
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")

    return parse
