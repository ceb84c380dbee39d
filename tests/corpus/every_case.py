"""All cases, by name: importing this fills the table."""

from __future__ import annotations

from tests.corpus import archives, executions, manifests, policies, signatures
from tests.corpus.cases import CASES, Case

SECTIONS = tuple(
    module.SECTION for module in (signatures, manifests, archives, policies, executions)
)
EXECUTED = executions.SECTION

__all__ = ["CASES", "EXECUTED", "SECTIONS", "Case"]
