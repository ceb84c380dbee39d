"""The command line that ps, top and /proc show of this process.

Linux shows the memory in which the arguments lay when the program began; who writes there is shown
differently. A process that was forked to do something else shows what it does this way.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ARG_START = 45  # of the fields of /proc/self/stat behind the name, see proc_pid_stat(5)


def set_process_title(words: Sequence[str]) -> bool:
    """Show `words` as the arguments of this process; false where they do not fit."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
    begin, end = map(int, fields.rpartition(")")[2].split()[_ARG_START : _ARG_START + 2])
    shown = b"\0".join(word.encode() for word in words) + b"\0"
    if begin == 0 or len(shown) > end - begin:
        return False
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)
    return True
