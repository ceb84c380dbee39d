"""The inference log: one JSON object a line for a request that was picked, in a file of its own.

The file is its owner's alone, is put aside when it is full, and the oldest is removed, so that all
of them together have a bound. Written by one thread at a time; nobody waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from io import BufferedWriter, FileIO, TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec

_OWNER_ONLY = 0o600
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class InferenceLog:
    """Lines in `path` and the files beside it that were put aside.

    Args:
        path: the file that is written.
        file_bytes: how large it gets.
        files: how many there are at most, this one included.
    """

    def __init__(self, path: Path, file_bytes: int, files: int) -> None:
        self.path = path
        self._file_bytes = file_bytes
        self._kept = files - 1
        self._handler: _OwnersFile | None = None

    def write(self, lines: Sequence[dict[str, Any]]) -> None:
        """Add lines.

        Raises:
            OSError: the file cannot be written; what was not written is lost.
        """
        if self._handler is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handler = _OwnersFile(self.path, self._file_bytes, self._kept)
        try:
            for line in lines:
                self._handler.emit(_record(msgspec.json.encode(line).decode()))
        except OSError:
            with contextlib.suppress(OSError):  # what it still holds cannot be written either
                self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.close()


class _OwnersFile(RotatingFileHandler):
    """The standard library's rotation, for files that nobody else may read."""

    def __init__(self, path: Path, file_bytes: int, kept: int) -> None:
        # With no file kept aside the library would not rotate at all, so one is begun anew then.
        self._begins_anew = kept == 0
        super().__init__(path, maxBytes=file_bytes, backupCount=kept, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, _FLAGS, _OWNER_ONLY)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # the last line was cut off
            os.write(descriptor, b"\n")
        return TextIOWrapper(BufferedWriter(FileIO(descriptor, "a")), encoding=self.encoding)

    def doRollover(self) -> None:  # noqa: N802 - its name
        """Put the file aside, or begin it anew where none is kept."""
        super().doRollover()
        if self._begins_anew:
            os.truncate(self.baseFilename, 0)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name
        """Let the error out; whoever writes says it once."""
        del record
        error = sys.exc_info()[1]
        if error is not None:
            raise error


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("inference", logging.INFO, "", 0, text, None, None)
