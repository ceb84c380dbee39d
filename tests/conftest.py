"""What holds for every test: its environment has nothing of who runs it.

Workers of pytest-xdist are told how wide a terminal is, and what the command prints into a pipe
must not depend on that. A machine that is busy makes no test fail: nothing is judged by its time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Forget the terminal, for this process and those that it starts."""
    os.environ.pop("COLUMNS", None)
    settings.register_profile(
        "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("patient")
