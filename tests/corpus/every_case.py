"""All cases, by name: importing this fills the table."""

from __future__ import annotations

from tests.corpus import (
    archives,
    engines,
    executions,
    manifest_files,
    manifest_proofs,
    manifests,
    policies,
    signatures,
    trespasses,
)
from tests.corpus.cases import CASES, Case

MODULES = (
    signatures,
    manifests,
    manifest_files,
    manifest_proofs,
    archives,
    engines,
    policies,
    executions,
    trespasses,
)
SECTIONS = tuple(dict.fromkeys(module.SECTION for module in MODULES))
EXECUTED = frozenset({executions.SECTION, trespasses.SECTION})

__all__ = ["CASES", "EXECUTED", "SECTIONS", "Case"]
