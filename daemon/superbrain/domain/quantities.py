"""Sizes and durations as people read them: two figures that matter, and the unit.

bytes_text(3_221_225_472)   "3.0 GiB"
duration_text(93_600)       "1 d 2 h"
"""

from __future__ import annotations

_BYTE_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
_TIME_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def bytes_text(size_bytes: float) -> str:
    """`size_bytes` in the unit that leaves one to four digits."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes:.0f} B"
    size, units = size_bytes / 1024, list(_BYTE_UNITS)
    while abs(size) >= 1000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    unit = units[0]
    return f"{size:.1f} {unit}" if abs(size) < 100 else f"{size:.0f} {unit}"


def duration_text(seconds: float) -> str:
    """`seconds` in its two largest units; below ten seconds with one decimal, or in ms."""
    if seconds < 0:
        return f"-{duration_text(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for index, (size, unit) in enumerate(_TIME_UNITS):
        if rest >= size:
            whole, rest = divmod(rest, size)
            smaller, smaller_unit = _TIME_UNITS[min(index + 1, len(_TIME_UNITS) - 1)]
            tail = f" {rest // smaller} {smaller_unit}" if rest // smaller else ""
            return f"{whole} {unit}{tail}"
    return "0 s"
