"""What holds for every test: its environment has nothing of who runs it.

Workers of pytest-xdist are told how wide a terminal is, and what the command prints into a pipe
must not depend on that. A machine that is busy makes no test fail: nothing is judged by its time.

Where files run side by side the long ones come first and the short ones last, so that all processes
end together; everything else stays in its random order.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

BRIEF_EXAMPLES = 25  # on a second Python, which is asked whether it does the same
#: The files that take longest, the longest first (half a minute and more on two processors).
LONGEST = (
    "tests/fault/test_cuts.py",
    "tests/fault/test_soak.py",
    "tests/integration/test_lifecycle.py",
    "tests/fault/test_inbox_days.py",
    "tests/integration/test_sample_bundles.py",
    "tests/fault/test_bad_days.py",
    "tests/integration/test_swaps.py",
    "tests/fault/test_kills.py",
    "tests/integration/test_operations_document.py",
    "tests/integration/test_trust.py",
    "tests/fault/test_misbehaving.py",
    "tests/integration/test_batching.py",
    "tests/integration/test_error_sentences.py",
    "tests/fault/test_outages.py",
)
SHORT = "tests/unit/"


def pytest_configure() -> None:
    """Forget the terminal, a collector of spans, and whose job this process and its own are."""
    os.environ.pop("COLUMNS", None)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a background job, and inherited
        signal.signal(signal.SIGINT, signal.default_int_handler)
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.register_profile("brief", patient, max_examples=BRIEF_EXAMPLES)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first and short ones last in a process that runs beside others."""
    if hasattr(config, "workerinput"):
        items.sort(key=by_length)


def by_length(item: pytest.Item) -> int:
    """Rank the longest file first; all files of a rank stay as they are."""
    file = item.nodeid.partition("::")[0]
    if file in LONGEST:
        return LONGEST.index(file)
    return len(LONGEST) + file.startswith(SHORT)
