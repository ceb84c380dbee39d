"""The metrics as others get them: a file that is replaced at every look, a text kept for scrapers.

The text of a report is made once, when it is first wanted: at every look for the file, when the
first asks for a scraper. Whoever asks by HTTP again gets what was made, so that asking often costs
the daemon next to nothing. What keeps the file from being written is said once, stays a problem
until it is over, and harms nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from superbrain.domain import metrics
from superbrain.domain.health import Problem
from superbrain.host.events import Event
from superbrain.host.files import write_atomically
from superbrain.host.logs import event

if TYPE_CHECKING:
    from superbrain.domain.health import Health

log = logging.getLogger(__name__)

_MEND = (
    "Let the service's user write there (docs/metrics.md), or take "
    "metrics.file out of the configuration"
)


class Metrics:
    """Publishes every report as metrics.

    Args:
        path: the file, whose name ends in `.prom`; None for none.

    Attributes:
        health: the newest report.
    """

    def __init__(self, path: Path | None) -> None:
        self.health: Health | None = None
        self._text = b""
        self._path = path
        self._published_at = 0.0
        self._unwritten = ""

    @property
    def age_s(self) -> float:
        """How old the newest report is; without end when there is none."""
        return time.monotonic() - self._published_at if self.health is not None else float("inf")

    @property
    def text(self) -> bytes:
        """The newest report as metrics; empty before the first."""
        if not self._text and self.health is not None:
            self._text = metrics.text(self.health).encode()
        return self._text

    def publish(self, health: Health) -> None:
        """Take a report, and replace the file."""
        self.health, self._published_at = health, time.monotonic()
        self._text = b""
        if self._path is not None:
            self._write(self._path)

    def withdraw(self) -> None:
        """Remove the file: nobody must take the last figures for those of a running daemon."""
        if self._path is not None:
            with contextlib.suppress(OSError):  # its time is in it, for those who look
                self._path.unlink()

    def problems(self) -> list[Problem]:
        """Say why there is no file."""
        return [Problem("warning", "metrics", self._unwritten, _MEND)] if self._unwritten else []

    def _write(self, path: Path) -> None:
        try:
            write_atomically(path, self.text, mode=0o644)  # node_exporter is another user
        except OSError as error:
            found = f"the metrics file {path} cannot be written: {error.strerror}"
            if self._unwritten != found:
                event(log, Event.METRICS_WRITE_FAILED, logging.ERROR, found)
            self._unwritten = found
        else:
            self._unwritten = ""
