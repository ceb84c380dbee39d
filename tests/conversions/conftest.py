"""Conversions of real models: not part of a plain test run, for every framework weighs a gigabyte.

`scripts/conversions` makes the environments and sets SUPERBRAIN_CONVERSIONS to the frameworks that
are there; each claim is one line with the seconds that it took, and a table ends it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conversions.author import Author
from tests.support.appliance import Appliance
from tests.support.torch_python import python_with_torch

SWITCH = "SUPERBRAIN_CONVERSIONS"
FRAMEWORKS = os.environ.get(SWITCH, "").split()
collect_ignore = [
    str(path)
    for path in Path(__file__).parent.glob("test_*.py")
    if path.stem.removeprefix("test_") not in FRAMEWORKS
]
BEGAN = pytest.StashKey[float]()


@pytest.fixture(scope="session")
def torch_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with this project and PyTorch; that of the tests where there is none."""
    return python_with_torch(tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="session")
def appliance(tmp_path_factory: pytest.TempPathFactory, torch_python: str) -> Iterator[Appliance]:
    """One daemon for all conversions, whose workers can import PyTorch where it is there."""
    running = Appliance(tmp_path_factory.mktemp("appliance"))
    running.python = torch_python or running.python
    with running:
        yield running


@pytest.fixture
def author(tmp_path: Path, appliance: Appliance) -> Author:
    """Somebody with a model, a key and that daemon."""
    return Author(tmp_path, appliance)


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[BEGAN] = time.monotonic()


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Say every claim in one line, with its seconds."""
    if report.when != "call" and not (report.when == "setup" and report.outcome != "passed"):
        return None
    mark = {"passed": "ok    ", "skipped": "skip  "}.get(report.outcome, "FAILED")
    claim = report.nodeid.partition("::test_")[2].replace("_", " ")
    line = f"{mark} {report.duration:6.1f} s  {framework_of(report):<10}  {claim}\n"
    return report.outcome, line, line


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A row for each framework, and how long all of it took."""
    counts: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            row = counts[framework_of(report)]
            row[outcome != "passed"] += 1
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                counts[framework_of(report)][2] += report.duration
    write = terminalreporter.write_line
    write(f"\n{'framework':<12}{'hold':>6}{'not':>6}{'seconds':>10}")
    for framework, (hold, wrong, seconds) in sorted(counts.items()):
        write(f"{framework:<12}{hold:>6.0f}{wrong:>6.0f}{seconds:>10.0f}")
    took = time.monotonic() - terminalreporter.config.stash[BEGAN]
    write(f"{'wall time':<12}{took:>22.0f}")


def framework_of(report: pytest.TestReport) -> str:
    """Which framework a claim is about."""
    return Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_")
