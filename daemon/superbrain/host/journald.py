"""The journal's own protocol: log records with fields, which `journalctl` can select by.

    journalctl SUPERBRAIN_EVENT=worker_died SUPERBRAIN_MODEL=ocr

A record is one datagram of `NAME=value` lines (systemd.io/JOURNAL_NATIVE_PROTOCOL). MESSAGE is a
sentence for people; every fact is a field `SUPERBRAIN_…` of its own. What a child process has told
the daemon is unfolded, so that a worker's fields have the same names as the daemon's own.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

SOCKET: Final = Path("/run/systemd/journal/socket")
IDENTIFIER: Final = "superbraind"
PREFIX: Final = "SUPERBRAIN_"
_MAX_NAME: Final = 64
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
# Said by the journal itself, or by the sentence.
_NO_FIELDS: Final = frozenset({"at", "level", "message"})


def send(priority: int, line: Mapping[str, object], path: Path | None = None) -> bool:
    """Give one record to the journal; False when it was not taken, and nothing is lost by that.

    Args:
        priority: of syslog(3), 0 to 7.
        line: what is logged, by name, as `superbrain.host.logs` makes it.
        path: another socket than the journal's own.
    """
    data = record(priority, line)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.connect(str(path or SOCKET))
            try:
                channel.send(data)
            except (BlockingIOError, PermissionError):
                return False
            except OSError:  # too large for a datagram: a sealed file travels instead
                _send_file(channel, data)
    except OSError:
        return False
    return True


def record(priority: int, line: Mapping[str, object]) -> bytes:
    """Encode one record."""
    facts = dict(_facts(line))
    fields = {
        "MESSAGE": sentence(line, facts),
        "PRIORITY": str(priority),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        **{_field_name(name): value for name, value in facts.items()},
    }
    return b"".join(_encoded(name, value) for name, value in fields.items())


def sentence(line: Mapping[str, object], facts: Mapping[str, str]) -> str:
    """Say what happened in one line for people: the event, its words, its facts."""
    told = line.get("told")
    words = [line.get("message"), told if isinstance(told, str) else None]
    said = " | ".join(str(word) for word in words if word)
    quiet = {"event", "logger", "pid", "traceback", *(["told"] if isinstance(told, str) else [])}
    shown = " ".join(f"{name}={_quoted(text)}" for name, text in facts.items() if name not in quiet)
    text = f"{line.get('event', '')}{': ' if said else ''}{said}"
    text += f" ({shown})" if shown else ""
    trace = facts.get("traceback")
    return f"{text}\n{trace}" if trace else text


def _facts(line: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in line.items():
        if isinstance(value, Mapping):
            for inner, fact in value.items():
                yield (inner if inner not in line else f"{name}_{inner}"), _text(fact)
        elif name not in _NO_FIELDS:
            yield name, _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    try:
        return msgspec.json.encode(value, enc_hook=str).decode()
    except Exception:  # noqa: BLE001 - an odd value must not cost the record
        return f"<{type(value).__name__} that cannot be shown>"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"\S+", text) else msgspec.json.encode(text).decode()


def _field_name(name: str) -> str:
    return (PREFIX + _NOT_IN_NAMES.sub("_", name.upper()))[:_MAX_NAME]


def _encoded(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _send_file(channel: socket.socket, data: bytes) -> None:
    fd = os.memfd_create("journal-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        socket.send_fds(channel, [b""], [fd])
    finally:
        os.close(fd)
