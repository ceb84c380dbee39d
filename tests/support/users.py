"""Being somebody else for a while, where the tests are run as root, who may read everything.

>>> with nobody():
...     read_trust_folder(folder)
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Have no rights of root's inside the block."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """Give a folder that everybody may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="sb-") as made:
        Path(made).chmod(0o755)
        yield Path(made)
