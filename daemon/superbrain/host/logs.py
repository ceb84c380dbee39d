"""Logs of the daemon's processes: one JSON object a line, on standard error.

    {"at": "2026-03-01T09:30:00.125Z", "level": "info", "event": "worker_started", "model": "ocr"}

- `event` is a stable name (`superbrain.host.events`); what a library or bundle code logs carries
  the event "log" and its text as `message`.
- A log call never raises and never writes half a line, however odd its values are.
- Under systemd each record goes to the journal with its fields (`superbrain.host.journald`). When
  the journal does not take it, the line goes to standard error all the same, beginning with its
  priority (`<4>`), which the journal takes off again.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import sys
from typing import Any, Final, TextIO

import msgspec

from superbrain.host import journald

_FIELDS: Final = "superbrain_fields"
_EVENT: Final = "superbrain_event"
_PLAIN_EVENT: Final = "log"

# sd-daemon(3): the priorities of syslog(3).
_OWN: Final = "superbrain"
_PRIORITIES: Final = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)


def configure(
    level: int | str = logging.INFO, stream: TextIO | None = None, *, process: str = ""
) -> None:
    """Send everything logged in this process to `stream` (standard error) as JSON lines.

    `level` is a name ("info") or a number of `logging`; `process` ("gateway", "worker 7") is
    written into every line. Calling it again replaces what was configured before.

    Raises:
        ValueError: `level` is no level that `logging` knows.
    """
    stream = sys.stderr if stream is None else stream
    under_systemd = _is_journal(stream)
    handler = JournalHandler(stream) if under_systemd else logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(process=process, priorities=under_systemd))
    set_level(level)
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(capture=True)


def set_level(level: int | str) -> None:
    """Log what is at least of `level`; libraries never in more detail than `info`.

    Raises:
        ValueError: `level` is no level that `logging` knows.
    """
    own = logging.getLogger(_OWN)
    own.setLevel(level.upper() if isinstance(level, str) else level)
    logging.getLogger().setLevel(max(own.level, logging.INFO))


def event(
    logger: logging.Logger,
    name: str,
    /,
    level: int = logging.INFO,
    message: str = "",
    *,
    exc_info: bool | BaseException = False,
    **fields: object,
) -> None:
    """Log that `name` (an `Event`) happened, with `fields` as the facts of this one time."""
    if logger.isEnabledFor(level):
        extra = {_EVENT: str(name), _FIELDS: fields}
        logger.log(level, "%s", message, extra=extra, exc_info=exc_info or None)


class JournalHandler(logging.StreamHandler[TextIO]):
    """Gives each record to the journal with its fields; to its stream when that fails."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.formatter.line(record) if isinstance(self.formatter, JsonLines) else {}
        if not line or not journald.send(_priority(record.levelno), line):
            super().emit(record)


class JsonLines(logging.Formatter):
    """Formats any log record as one line of JSON."""

    def __init__(self, *, process: str = "", priorities: bool = False) -> None:
        super().__init__()
        self._process = process
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        line = _encode(self.line(record))
        return f"<{_priority(record.levelno)}>{line}" if self._priorities else line

    def line(self, record: logging.LogRecord) -> dict[str, Any]:
        """Give what the line says, by name."""
        line: dict[str, Any] = {
            "at": _iso_utc(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, _EVENT, _PLAIN_EVENT),
        }
        if message := _message(record):
            line["message"] = message
        if line["event"] == _PLAIN_EVENT:
            line["logger"] = record.name
        if self._process:
            line["process"] = self._process
        for key, value in getattr(record, _FIELDS, {}).items():
            line[f"{key}_" if key in line else key] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return line


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - wrong arguments of a foreign log call
        return f"{record.msg!s} (its arguments do not fit: {error})"


def _iso_utc(seconds: float) -> str:
    at = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encode(line: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=_text).decode()
    except Exception:  # noqa: BLE001 - one odd value must not cost the line; see `_text`
        return msgspec.json.encode({key: _plain(value) for key, value in line.items()}).decode()


def _plain(value: object) -> object:
    try:
        return msgspec.Raw(msgspec.json.encode(value, enc_hook=_text))
    except Exception:  # noqa: BLE001 - lone surrogates, cycles, huge integers, objects that raise
        return _text(value)


def _text(value: object) -> str:
    try:
        text = str(value) if isinstance(value, str | BaseException) else repr(value)
        return text.encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - an object whose repr raises
        return f"<{type(value).__name__} that cannot be printed>"


def _priority(level: int) -> int:
    return next((priority for floor, priority in _PRIORITIES if level >= floor), 7)


def _is_journal(stream: TextIO) -> bool:
    """Whether systemd connected `stream` to the journal (JOURNAL_STREAM in systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
