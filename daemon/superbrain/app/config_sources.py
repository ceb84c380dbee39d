"""Where the values of a configuration come from: a file, variables that count more, a root.

A wrong value is blamed on whoever has set it, so that nobody mends a file that is not at fault.

>>> variable = Variable("SUPERBRAIN__DEPLOY__PROBATION_S", "120")
>>> variable.key, variable.value
('deploy.probation_s', 120)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

VARIABLES: Final = "SUPERBRAIN__"


class Variable(NamedTuple):
    """One variable of the environment that sets a key."""

    name: str
    text: str

    @property
    def key(self) -> str:
        """The key that it sets, as `section.key`."""
        return self.name.removeprefix(VARIABLES).lower().replace("__", ".", 1)

    @property
    def value(self) -> Any:  # noqa: ANN401 - whatever TOML has
        """What it says, as in the file; a word may be without quotes."""
        try:
            return tomllib.loads(f"value = {self.text}")["value"]
        except tomllib.TOMLDecodeError:
            return self.text

    def __str__(self) -> str:
        """Name it with what it says."""
        return f"the variable {self.name}={self.text!r}"


class Sources(NamedTuple):
    """A file that was read (None: none was), the variables by their keys, and a root's folder."""

    file: Path | None
    variables: dict[str, Variable]
    root: Path | None

    def of(self, *keys: str) -> str:
        """Say who has set one of the keys, or could have."""
        if self.root is not None and any(key.startswith("paths.") for key in keys):
            return f"--root {self.root}"
        for key in keys:
            if key in self.variables:
                return str(self.variables[key])
        return f"the configuration {self.file or 'defaults'}"

    def added_to(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Give what the file says, and the variables instead where they say something else."""
        merged = {name: dict(of) if isinstance(of, dict) else of for name, of in raw.items()}
        for variable in self.variables.values():
            section, _, key = variable.key.partition(".")
            keys = merged.setdefault(section, {})
            if isinstance(keys, dict):
                keys[key] = variable.value
        return merged


def variables(environment: Mapping[str, str]) -> list[Variable]:
    """Give those that are meant for the configuration."""
    return [Variable(*item) for item in environment.items() if item[0].startswith(VARIABLES)]


def variable_name(key: str) -> str:
    """Name the variable that sets a key."""
    return VARIABLES + key.replace(".", "__").upper()
