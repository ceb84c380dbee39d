"""A clock for what measures how long something has lasted.

>>> clock = Clock()
>>> inbox = Inbox(folder, settle_s=3.0, clock=clock)
>>> clock.now_s = 3.0
"""

from __future__ import annotations


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s
