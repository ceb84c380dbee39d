"""Figures as a line of text: a curve of many, a bar of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

_LEVELS: Final = "▁▂▃▄▅▆▇█"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_NONE: Final = "·"
_HIGH: Final = 75.0
_FULL: Final = 90.0


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw the newest `width` values, from zero to their largest; a dot where there is none.

    >>> sparkline([0, 1, None, 8], 6)
    '  ▁▂·█'
    """
    newest = values[-width:]
    most = max((value for value in newest if value is not None), default=0.0)
    drawn = (_NONE if value is None else _level(value, most) for value in newest)
    return "".join(drawn).rjust(width)


def meter(percent: float, width: int, *, style: str = "") -> Text:
    """Draw a bar of `width` characters; without a style it is green, yellow or red by itself."""
    eighths = round(min(max(percent, 0.0), 100.0) / 100 * width * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
    colour = "red" if percent >= _FULL else "yellow" if percent >= _HIGH else "green"
    bar = Text(drawn, style=style or colour)
    return bar.append("░" * (width - len(drawn)), style="dim")


def _level(value: float, most: float) -> str:
    if most <= 0:
        return _LEVELS[0]
    return _LEVELS[min(len(_LEVELS) - 1, int(value / most * (len(_LEVELS) - 0.001)))]
