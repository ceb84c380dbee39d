"""The compiled inner loop of a lane, where it was built; `daemon/loop` has its source.

It is optional: everything in it has a twin in Python that does the same, and serves where there was
no compiler. `SUPERBRAIN_LOOP=python` in the environment keeps a process to the twins.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

VARIABLE: Final = "SUPERBRAIN_LOOP"
REVISION: Final = 5  # of what `daemon/loop/loop.h` offers


@cache
def loop() -> ModuleType | None:
    """Give the compiled module; None where the twins serve."""
    if os.environ.get(VARIABLE) == "python":
        return None
    try:
        from superbrain.transport import _loop
    except ImportError:
        return None
    return _loop if _loop.REVISION == REVISION else None


def described() -> str:
    """Say which of the two serves, and why, in a few words."""
    if loop() is not None:
        return "compiled"
    if os.environ.get(VARIABLE) == "python":
        return f"Python, as {VARIABLE} says"
    return "Python, no compiled loop was built"
