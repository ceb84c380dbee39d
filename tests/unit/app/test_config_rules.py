"""What must hold of a configuration's values: the numbers, and what the documents show."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from superbrain.app.config import Config, ConfigError, load_config
from superbrain.app.config_keys import KEYS, values
from superbrain.cli.health import MAX_AGE_S

DOCS = Path(__file__).parents[3] / "docs"
NUMBERS = {
    key: value
    for key, value in values(Config()).items()
    if isinstance(value, int | float) and not isinstance(value, bool)
}
ABSURD = ("nan", "inf", "-inf", "1e400", "-1e400", "-1", "-0.5", "1e300", "1" + "0" * 30)


def loaded(tmp_path: Path, key: str, value: object) -> Config:
    section, _, name = key.partition(".")
    path = tmp_path / "superbrain.toml"
    path.write_text(f"[{section}]\n{name} = {value}\n")
    return load_config(path, environment={})


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_its_bounds_and_a_default_within_them(key: str) -> None:
    within = KEYS[key].within
    assert within is not None
    assert within.least >= 0
    assert within.holds(NUMBERS[key])


def test_nothing_but_numbers_has_bounds() -> None:
    assert {key for key, about in KEYS.items() if about.within is not None} == set(NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_both_ends_are_taken(tmp_path: Path, key: str) -> None:
    within = KEYS[key].within
    assert within is not None
    for end in within:
        assert values(loaded(tmp_path, key, end))[key] == end


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_that_makes_no_sense_is_taken(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(key)):
        loaded(tmp_path, key, value)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("deploy.probation_s", "-1", "expected deploy.probation_s of 0 to 604800, found -1.0"),
        ("deploy.settle_s", "nan", "expected deploy.settle_s of 0 to 3600, found nan"),
        ("deploy.rescan_s", "1e400", "expected deploy.rescan_s of 0.1 to 3600, found inf"),
        ("deploy.parallel", "100000", "expected deploy.parallel of 1 to 64, found 100000"),
        ("budget.error_share", "2", "expected budget.error_share of 0 to 1, found 2.0"),
        ("health.interval_s", "100000", "expected health.interval_s of 0.1 to 30, found 100000.0"),
    ],
)
def test_a_number_out_of_bounds_is_told_with_them(
    tmp_path: Path, key: str, value: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, key, value)
    assert caught.value.message.endswith(sentence)
    assert caught.value.mend == f"superbrain config explain {key} says what it means"


def test_a_report_cannot_come_so_seldom_that_health_calls_it_too_old() -> None:
    within = KEYS["health.interval_s"].within
    assert within is not None
    assert 2 * within.most <= MAX_AGE_S


def examples() -> list[Any]:
    """Give every piece of a configuration that the documents show."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        for number, text in enumerate(
            re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
        ):
            if tomllib.loads(text).keys() <= set(Config.__struct_fields__):
                found.append(pytest.param(text, id=f"{page.name}-{number}"))
    return found


@pytest.mark.parametrize("text", examples())
def test_what_the_documents_show_is_good(tmp_path: Path, text: str) -> None:
    path = tmp_path / "superbrain.toml"
    path.write_text(text)
    load_config(path, environment={})
