"""A number that does not fit is refused in words, never by the name of what reads it."""

from __future__ import annotations

import pytest

from superbrain.cli.main import main

NUMBERS = {
    ("history", "--limit"): "expected 1 to 10000, got ",
    ("audit", "--limit"): "expected 1 to 10000, got ",
    ("health", "--timeout"): "expected seconds between 0 and 86400, got ",
    ("health", "--max-age"): "expected seconds from 0 on, got ",
    ("doctor", "--probe-timeout"): "expected seconds between 0 and 3600, got ",
    ("top", "--interval"): "expected 0.1 to 3600 seconds, got ",
    ("support-bundle", "--time-limit"): "expected seconds between 0 and 3600, got ",
    ("load", "--processes"): "expected 1 to 256, got ",
    ("load", "--concurrency"): "expected 1 to 256, got ",
    ("load", "--rate"): "expected rates above 0, up to 1000000, got ",
    ("load", "--duration"): "expected seconds between 0 and 86400, got ",
}


@pytest.mark.parametrize("value", ["x", "-1", "nan", ""])
@pytest.mark.parametrize(("words", "expected"), NUMBERS.items())
def test_what_is_no_number_that_fits_is_refused_in_words(
    words: tuple[str, str], expected: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, option = words
    assert main([command, f"{option}={value}"]) == 2
    error = capsys.readouterr().err
    assert f"argument {option}: {expected}{value!r}\n" in error
    assert "invalid" not in error
