"""What holds for every test: its environment has nothing of who runs it.

Workers of pytest-xdist are told how wide a terminal is, and what the command prints into a pipe
must not depend on that. A machine that is busy makes no test fail: nothing is judged by its time.
"""

from __future__ import annotations

import os
import signal
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# These take longest, so they begin first: a run of two files at a time then ends with short ones.
LONGEST: Final = {
    "test_corpus.py",
    "test_cuts.py",
    "test_inbox_days.py",
    "test_lifecycle.py",
    "test_misbehaving.py",
    "test_operations_document.py",
    "test_sample_bundles.py",
    "test_soak.py",
    "test_swaps.py",
    "test_trust.py",
}


def pytest_configure() -> None:
    """Forget the terminal, a collector of spans, and whose job this process and its own are."""
    os.environ.pop("COLUMNS", None)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a background job, and inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile(
        "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("patient")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin, and unit tests end; otherwise the order stays as shuffled."""
    items.sort(key=lambda item: (item.path.name not in LONGEST, "unit" in item.path.parts))
