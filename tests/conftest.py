"""What holds for every test: its environment has nothing of who runs it.

Workers of pytest-xdist are told how wide a terminal is, and what the command prints into a pipe
must not depend on that.
"""

from __future__ import annotations

import os


def pytest_configure() -> None:
    """Forget the terminal, for this process and those that it starts."""
    os.environ.pop("COLUMNS", None)
