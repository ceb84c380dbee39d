"""The table of all cases: what is bent, and what a host must say to it.

Each file of cases is a section of docs/corpus.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.corpus.draft import Draft

Bend = Callable[[Draft], None]


class Case(NamedTuple):
    """One bad bundle.

    `codes`: the reason codes that are right; `says`: a piece of the message; `bend`: makes it bad.
    """

    section: str
    name: str
    codes: frozenset[str]
    says: str
    bend: Bend
    note: str


CASES: dict[str, Case] = {}


def case(section: str, codes: str, says: str) -> Callable[[Bend], Bend]:
    """Enter a function into the table; its name is the case's, its docstring says what is bent."""

    def enter(bend: Bend) -> Bend:
        name = bend.__name__.strip("_").replace("_", "-")
        assert name not in CASES, name
        note = " ".join((bend.__doc__ or "").split())
        CASES[name] = Case(section, name, frozenset(codes.split()), says, bend, note)
        return bend

    return enter


def enter(section: str, name: str, codes: str, says: str, note: str, bend: Bend) -> None:
    """Enter one of many alike."""
    assert name not in CASES, name
    CASES[name] = Case(section, name, frozenset(codes.split()), says, bend, note)
