"""Everything that is collected, as one table: a name, what it is, and who gives it.

A part gives a structure (it becomes JSON), a text, or several of them by name. One that cannot be
had says why, and the others come all the same.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from superbrain.app.config import Config
from superbrain.app.config_keys import values
from superbrain.bundle.trust_folder import read_trust_files
from superbrain.cli.support import system
from superbrain.cli.support.source import UNIT, CannotHave, Source
from superbrain.deploy.journal_copy import copy_journal, read_tables
from superbrain.domain import operations as op
from superbrain.host.audit_log import AuditLog
from superbrain.wire.errors import SuperbrainError

HISTORY: Final = 2000
REPORTS: Final = 100
AUDIT: Final = 1000
ROWS: Final = 2000
LOG_RECORDS: Final = 5000
MAX_NOTES: Final = 200
_SHOWN: Final = (
    "ActiveState,SubState,Result,StatusText,MainPID,ExecMainCode,ExecMainStatus,NRestarts,"
    "ActiveEnterTimestamp,InactiveEnterTimestamp,WatchdogTimestamp,WatchdogUSec,MemoryCurrent,"
    "MemoryPeak,MemoryMax,TasksCurrent,TasksMax,CPUUsageNSec,User,Group,FragmentPath,DropInPaths,"
    "UnitFileState,NeedDaemonReload,LoadState,LoadError,LimitNOFILE,PrivateNetwork,DevicePolicy"
)
_SPOKEN: Final = frozenset({"child_output", "log"})

Found = object  # a structure, a text, or a Several


class Several(NamedTuple):
    """A part of several files."""

    files: Mapping[str, Found]


class Part(NamedTuple):
    """One row: the file's name, what is in it, who gives it."""

    name: str
    what: str
    collect: Callable[[Source], Found]


def by_command(*words: str) -> Callable[[Source], Found]:
    """What another of superbrain's commands prints, told where this host's folders are."""

    def collect(source: Source) -> Found:
        from superbrain.cli.main import COMMANDS

        if words[0] not in {row.name for rows in COMMANDS.values() for row in rows}:
            raise CannotHave(f"this version has no superbrain {words[0]}")
        return source.output(sys.executable, "-m", "superbrain.cli.main", *words, *source.places)

    return collect


def _health_file(source: Source) -> Found:
    return source.tail(source.config.health_path)


def _status(source: Source) -> Found:
    return source.ask(op.GetHealth(), op.HealthReply).health


def _history(source: Source) -> Found:
    return source.ask(op.GetHistory(limit=HISTORY), op.HistoryReply).transitions


def _reports(source: Source) -> Found:
    """Of every model what serves, and of the newest steps every version."""
    steps = source.ask(op.GetHistory(limit=HISTORY), op.HistoryReply).transitions
    named = dict.fromkeys((step.model, step.version) for step in steps)
    found: dict[str, Found] = {}
    for model, version in list(named)[:REPORTS]:
        try:
            found[f"{model}-{version}.json"] = source.ask(
                op.GetReport(model, version), op.ReportReply
            )
        except SuperbrainError as error:
            found[f"{model}-{version}.json"] = {"missing": error.message}
    return Several(found)


def _trust(source: Source) -> Found:
    return source.ask(op.GetTrust(), op.TrustReply).trust


def _trust_folder(source: Source) -> Found:
    files = read_trust_files(source.config.trust_path)
    return {
        "keys": sorted(key.key_id for key in files.anchor.keys),
        "threshold": files.anchor.threshold,
        "revoked": sorted(files.revoked),
    }


def _audit(source: Source) -> Found:
    """From the folder, which needs no daemon; else by it."""
    folder = source.config.journal_path.parent
    if folder.is_dir():
        entries = AuditLog(folder).newest(AUDIT)
        if entries:
            return entries
    return source.ask(op.GetAudit(AUDIT), op.AuditReply).entries


def _journal(source: Source) -> Found:
    with tempfile.TemporaryDirectory(prefix="superbrain-support-") as work:
        copy = Path(work) / "journal.sqlite"
        copy_journal(source.config.journal_path, copy)
        tables = read_tables(copy, ROWS)
    return Several({f"{name}.json": rows for name, rows in tables.items()})


def _configuration(source: Source) -> Found:
    found, usual = source.redactor.values(values(source.config)), values(Config())
    return {
        "error": source.config_error,
        "values": found,
        "not_default": [key for key, value in values(source.config).items() if value != usual[key]],
    }


def _log(source: Source) -> Found:
    if source.log is not None:
        return _quiet(source.tail(source.log), source)
    command = (
        "journalctl",
        "-u",
        UNIT,
        "--output=json",
        "-n",
        str(LOG_RECORDS),
        "--no-pager",
        "-q",
    )
    text = source.output(*command)
    if not text.strip():
        raise CannotHave(
            f"the system's journal has nothing of {UNIT} for this user",
            mend="Run it with sudo; started by hand, the daemon logs where it was started: --log",
        )
    return _quiet(text, source)


def _inference_log(source: Source) -> Found:
    """The end of it, without payloads, whatever is configured now or was when it was written."""
    path = source.config.inference_log_path
    if source.config.inference_log.to != "file" and not path.exists():
        return 'inference_log.to is not "file": there is none\n'
    lines = source.tail(path).splitlines()
    return "".join(f"{_without_payload(line)}\n" for line in lines)


def _without_payload(line: str) -> str:
    try:
        record = json.loads(line)
        for tensor in record.get("inputs", []):
            tensor.pop("payload", None)
    except (ValueError, AttributeError):
        return f"[{len(line)} characters that are no record]"
    return json.dumps(record)


def _quiet(text: str, source: Source) -> str:
    """Leave out what models and their code have said, unless it is asked for."""
    if source.with_output:
        return text
    return "\n".join(_without_speech(line) for line in text.splitlines()) + "\n"


def _without_speech(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return f"[{len(line)} characters that are no record: --with-output]"
    if not isinstance(record, dict):
        return f"[{len(line)} characters that are no record: --with-output]"
    for name in ("event", "SUPERBRAIN_EVENT"):
        own = str(record.get("logger", record.get("SUPERBRAIN_LOGGER", ""))).startswith(
            "superbrain"
        )
        if record.get(name) in _SPOKEN and not own:
            return json.dumps({key: _muted(key, value) for key, value in record.items()})
    known = "event" in record or "SUPERBRAIN_EVENT" in record or "MESSAGE" in record
    return line if known else f"[{len(line)} characters that are no record: --with-output]"


def _muted(key: str, value: object) -> object:
    spoken = {"message", "told", "traceback", "line", "text", "output"}
    if key.removeprefix("SUPERBRAIN_").lower() in spoken:
        return f"[{len(str(value))} characters: --with-output]"
    return value


def _unit_facts(source: Source) -> Found:
    return source.output("systemctl", "show", UNIT, "--no-pager", f"--property={_SHOWN}")


def _unit_files(source: Source) -> Found:
    return source.redactor.unit(source.output("systemctl", "cat", UNIT, "--no-pager"))


def _inbox(source: Source) -> Found:
    """What lies there, and what was written beside refused files; never what is in a bundle."""
    folder = source.config.inbox_path
    try:
        entries = sorted(folder.iterdir())[: system.MAX_ENTRIES]
    except OSError as error:
        raise CannotHave(f"{folder} cannot be listed: {error.strerror}") from error
    notes = [path for path in entries if path.name.endswith(".refused.txt")]
    return Several(
        {
            "listing.json": [
                {"name": path.name, "size_bytes": path.lstat().st_size} for path in entries
            ],
            **{path.name: source.tail(path, 1 << 16) for path in notes[:MAX_NOTES]},
        }
    )


PARTS: Final[tuple[Part, ...]] = (
    Part(
        "versions.json", "superbrain, Python, packages, kernel, system", lambda _: system.versions()
    ),
    Part("health.json", "the health report as it lies in the runtime folder", _health_file),
    Part("status.json", "the health report as the daemon gives it now", _status),
    Part("doctor.json", "what superbrain doctor finds", by_command("doctor", "--json")),
    Part("history.json", f"the newest {HISTORY} steps of all deployments", _history),
    Part("reports/", "every deployment with its proofs", _reports),
    Part("trust.json", "whom the daemon believes: key ids, updates, what is revoked", _trust),
    Part("trust-folder.json", "whom the trust folder names: key ids", _trust_folder),
    Part("audit.json", f"the newest {AUDIT} entries of the audit trail", _audit),
    Part("journal/", f"the tables of the daemon's journal, the newest {ROWS} rows", _journal),
    Part("log.jsonl", f"the log: the newest {LOG_RECORDS} records, or the end of --log", _log),
    Part(
        "inference.jsonl",
        "the end of the inference log, where there is one, never with payloads",
        _inference_log,
    ),
    Part("configuration.json", "what superbrain config show prints", _configuration),
    Part("service.txt", "what systemd says of the service", _unit_facts),
    Part("unit.txt", "the unit and its drop-ins, without their environment", _unit_files),
    Part("host.json", "memory, load, limits", lambda _: system.host()),
    Part("disks.json", "room where the folders lie", lambda source: system.disks(source.config)),
    Part("processes.json", "the processes of superbrain", lambda _: system.processes()),
    Part("sockets.txt", "who listens", lambda source: system.sockets(source.config)),
    Part(
        "permissions.txt",
        "mode, owner and size of everything in all folders",
        lambda source: system.permissions(source.config),
    ),
    Part("inbox/", "what lies in the inbox, and why files were refused", _inbox),
)


def encoded(found: Found, source: Source) -> bytes:
    """A part's bytes, without what is secret in it."""
    text = (
        found
        if isinstance(found, str)
        else msgspec.json.format(msgspec.json.encode(found, enc_hook=str), indent=1).decode()
    )
    return source.redactor.text(text).encode("utf-8", "replace")


def collect(part: Part, source: Source) -> dict[str, Any]:
    """Collect one part: its files by name, or the reason why it cannot be had as `str`."""
    source.left_s()
    found = part.collect(source)
    if isinstance(found, Several):
        return {part.name + name: encoded(one, source) for name, one in found.files.items()}
    return {part.name: encoded(found, source)}
