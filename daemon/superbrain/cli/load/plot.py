"""A plot of characters: points on a logarithmic scale, for a terminal or a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]


def scatter(
    series: Mapping[str, Points], *, x_label: str, y_label: str, width: int = 60, height: int = 12
) -> str:
    """Draw every series with the character that is its name.

    Args:
        series: character to points (x, y), y above zero; later ones are drawn over earlier ones.
        x_label: below the plot, with the range.
        y_label: above the plot; its scale is logarithmic.
        width: of the plot in characters.
        height: of the plot in lines.
    """
    points = [point for one in series.values() for point in one]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = _decades([y for _, y in points])
    rows = [[" "] * width for _ in range(height)]
    for character, one in series.items():
        for x, y in one:
            column = _place(x, x_low, x_high, width)
            row = _place(math.log10(y), math.log10(y_low), math.log10(y_high), height)
            rows[height - 1 - row][column] = character
    labels = {height - 1: f"{y_low:g}", 0: f"{y_high:g}"}
    margin = max(map(len, labels.values()))
    lines = [y_label]
    for number, cells in enumerate(rows):
        lines.append(f"{labels.get(number, ''):>{margin}} |{''.join(cells)}".rstrip())
    lines.append(f"{'':>{margin}} +{'-' * width}")
    left, right = f"{x_low:,.0f}", f"{x_high:,.0f} {x_label}"
    lines.append(f"{'':>{margin}}  {left}{right:>{width - len(left)}}")
    return "\n".join(lines)


def _place(value: float, low: float, high: float, cells: int) -> int:
    if high <= low:
        return 0
    return min(cells - 1, max(0, round((value - low) / (high - low) * (cells - 1))))


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Give 1, 2 or 5 times a power of ten on either side."""
    return _step(min(values), up=False), _step(max(values), up=True)


def _step(value: float, *, up: bool) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    steps = [power * factor for factor in (1, 2, 5, 10)]
    return float(min(s for s in steps if s >= value) if up else max(s for s in steps if s <= value))
