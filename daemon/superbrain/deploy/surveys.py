"""What builders have found out about this host, remembered for as long as it holds.

    surveys.json   by rung: the outlook at that time, the host, the names of the builder flags

An engine's key needs the library's version and the GPU, which only a process that may crash can
ask. What it said is kept beside the engines, so that a rung whose engines are all at hand needs no
builder. It is a memory and no truth: it is only believed while the host's outlook is the same, and
what it leads to is proven like everything.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from superbrain.domain.engine import EngineHost
from superbrain.host.events import Event
from superbrain.host.files import write_atomically
from superbrain.host.logs import event

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

FILE_NAME: Final = "surveys.json"


class KnownHost(msgspec.Struct, frozen=True):
    """What a builder found for one rung while the host had this `outlook`."""

    outlook: str
    host: EngineHost
    flags: list[str]


class Surveys:
    """Remembers, in a file beside the engines. Use from one thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._known: dict[str, KnownHost] = {}
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # then it is found out again
            self._known = msgspec.json.decode(self._path.read_bytes(), type=dict[str, KnownHost])

    def recall(self, rung: str, outlook: str) -> KnownHost | None:
        """Give what was found for a rung; None when nothing was, or the host has changed since."""
        known = self._known.get(rung)
        return known if known is not None and known.outlook == outlook else None

    def keep(self, rung: str, found: KnownHost) -> None:
        """Remember what a builder has found."""
        if self._known.get(rung) != found:
            self._known[rung] = found
            self._write()

    def forget(self, rung: str) -> None:
        """Have a builder look again: what was led to did not work."""
        if self._known.pop(rung, None) is not None:
            self._write()

    def _write(self) -> None:
        try:
            write_atomically(self._path, msgspec.json.encode(self._known), mode=0o600)
        except OSError as error:  # it is known until the daemon ends
            event(log, Event.TASK_FAILED, logging.WARNING, str(error), path=str(self._path))
