"""What a conversion is at: one line that changes on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

_COUNTING = re.compile(r", \d+ s$|, \d+ of up to \d+$")


class Told:
    """Tell a person on standard error; `quiet` tells nobody."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._status: Status | None = None
        self._quiet = quiet
        if self._console.is_terminal and not quiet:
            self._status = self._console.status("")

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def __call__(self, text: str) -> None:
        """Say what is being done now; what only counts on is kept to terminals."""
        if self._status is not None:
            self._status.update(text)
        elif not self._quiet and not _COUNTING.search(text):
            print(f"  {text}", file=sys.stderr, flush=True)
