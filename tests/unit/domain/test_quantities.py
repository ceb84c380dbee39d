"""Sizes and durations as text."""

from __future__ import annotations

import pytest

from superbrain.domain.quantities import bytes_text, duration_text

SIZES = {
    0: "0 B",
    1023: "1023 B",
    1024: "1.0 KiB",
    1023 << 10: "1.0 MiB",
    3 << 30: "3.0 GiB",
    200 << 30: "200 GiB",
    5 << 60: "5120 PiB",
    -2048: "-2.0 KiB",
}
DURATIONS = {
    0.0: "0 ms",
    0.0124: "12 ms",
    1.84: "1.8 s",
    59.0: "59 s",
    59.9: "1 min",
    95.0: "1 min 35 s",
    3600.0: "1 h",
    93_600.0: "1 d 2 h",
    86_430.0: "1 d",
    -5.0: "-5.0 s",
}


@pytest.mark.parametrize(("size_bytes", "text"), SIZES.items())
def test_a_size_is_told_in_the_unit_that_fits(size_bytes: int, text: str) -> None:
    assert bytes_text(size_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), DURATIONS.items())
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
