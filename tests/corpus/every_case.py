"""All cases, by name: importing this fills the table."""

from __future__ import annotations

from tests.corpus import (
    archives,
    engines,
    executions,
    manifests,
    policies,
    signatures,
    trespasses,
)
from tests.corpus.cases import CASES, Case

SECTIONS = tuple(
    module.SECTION
    for module in (signatures, manifests, archives, engines, policies, executions, trespasses)
)
EXECUTED = frozenset({executions.SECTION, trespasses.SECTION})

__all__ = ["CASES", "EXECUTED", "SECTIONS", "Case"]
