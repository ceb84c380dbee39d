"""What many of these files begin with: a gateway that is ready for workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A gateway of its own for each test."""
    with Stage(tmp_path) as stage:
        yield stage
