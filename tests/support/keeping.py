"""Whether something that is done again and again keeps memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

TIMES = 2000


def assert_keeps_nothing(once: Callable[[], object]) -> None:
    """Do it `TIMES` times; fewer than half as many blocks of memory may be left of that.

    What fills up once, such as a list of the last figures, is far below; a block for each is not.
    """
    for _ in range(20):
        once()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(TIMES):
        once()
    gc.collect()
    assert sys.getallocatedblocks() - before < TIMES / 2
