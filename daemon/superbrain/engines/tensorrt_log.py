"""The logger that these libraries tell their reasons to, and nobody else."""

from __future__ import annotations

import collections
import re
from typing import Any, Final

_KEPT: Final = 20
_WHERE: Final = re.compile(r"\s*(?:In \S+ )?at \S+\.(?:cpp|h|cu):\d+")
_LONGEST: Final = 500


class Said:
    """The errors that a library has logged, newest last."""

    def __init__(self) -> None:
        self.errors: collections.deque[str] = collections.deque(maxlen=_KEPT)

    @property
    def last_error(self) -> str:
        """The last error on one line, without the library's own source files; empty for none."""
        text = self.errors[-1] if self.errors else ""
        return " ".join(_WHERE.sub("", text).split())[:_LONGEST]


def collecting_logger(trt: Any) -> tuple[Any, Said]:  # noqa: ANN401 - the libraries have no types
    """Make a logger for one library; what it is told is in the second value."""
    said = Said()

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            if severity <= trt.ILogger.ERROR:  # internal errors are below errors
                said.errors.append(msg)

    return Logger(), said
