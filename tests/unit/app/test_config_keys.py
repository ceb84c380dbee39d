"""What is known of every key: complete, and true."""

from __future__ import annotations

import tomllib

import msgspec
import pytest

from superbrain.app.config import Config, Deploy, Log, known_keys, load_config, nearest
from superbrain.app.config_keys import KEYS, changes, default_file, values


def test_every_key_is_explained_in_the_order_of_the_file() -> None:
    assert list(KEYS) == known_keys() == list(values(Config()))


def test_the_default_file_sets_nothing_and_shows_every_default() -> None:
    text = default_file(Config())
    assert load_config(None, None, {}) == Config()
    assert not any(tomllib.loads(text).values())
    uncommented = "\n".join(
        line.removeprefix("#") if line.startswith("#") and line[1] != " " else line
        for line in text.splitlines()
    )
    assert msgspec.convert(tomllib.loads(uncommented), Config) == Config()


def test_changes_name_key_values_and_what_applies_them() -> None:
    after = Config(log=Log("debug"), deploy=Deploy(parallel=3))
    assert changes(Config(), after) == [
        ("deploy.parallel", 2, 3, "restart"),
        ("log.level", "info", "debug", "reload"),
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deploy.probation", "deploy.probation_s"),
        ("deplyo", "deploy"),
        ("deplyo.parallel", "deploy.parallel"),
        ("parallel", "deploy.parallel"),
        ("entirely.else", ""),
    ],
)
def test_a_wrong_key_finds_the_one_that_was_meant(typed: str, meant: str) -> None:
    assert nearest(typed) == meant


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("SUPERBRAIN__DEPLOY__PROBATION_S", "120", "deploy.probation_s", 120.0),
        ("SUPERBRAIN__LOG__LEVEL", "debug", "log.level", "debug"),
        ("SUPERBRAIN__LOG__LEVEL", '"debug"', "log.level", "debug"),
    ],
)
def test_a_variable_counts_more_than_the_file(
    variable: str, text: str, key: str, value: object
) -> None:
    assert values(load_config(environment={variable: text}))[key] == value
