"""The other ends of a client, played by the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lane_ends import WorkerEnd
from tests.support.lone_client import Gateway


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerEnd]:
    """One that has not greeted yet."""
    worker = WorkerEnd(tmp_path / "lane")
    yield worker
    worker.close()


@pytest.fixture
def gateway(tmp_path: Path, worker: WorkerEnd) -> Iterator[Gateway]:
    """One that knows this worker."""
    gateway = Gateway(tmp_path, worker)
    yield gateway
    gateway.close()
