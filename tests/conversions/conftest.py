"""Conversions of real models: not part of a plain test run, for every framework weighs a gigabyte.

`scripts/conversions` makes the environments and sets SUPERBRAIN_CONVERSIONS; each claim is one line
with the seconds that it took.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conversions.author import Author
from tests.support.appliance import Appliance

SWITCH = "SUPERBRAIN_CONVERSIONS"
collect_ignore_glob = [] if os.environ.get(SWITCH) else ["test_*.py"]


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One daemon for all conversions."""
    with Appliance(tmp_path_factory.mktemp("appliance")) as running:
        yield running


@pytest.fixture
def author(tmp_path: Path, appliance: Appliance) -> Author:
    """Somebody with a model, a key and that daemon."""
    return Author(tmp_path, appliance)


def pytest_report_teststatus(
    report: pytest.TestReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """Say every claim in one line, with its seconds."""
    if report.when != "call" and not (report.when == "setup" and report.outcome != "passed"):
        return None
    claim = report.nodeid.partition("::test_")[2].replace("_", " ")
    mark = {"passed": "ok    ", "skipped": "skip  "}.get(report.outcome, "FAILED")
    line = f"{mark} {report.duration:6.1f} s  {claim}\n"
    return report.outcome, line, line
