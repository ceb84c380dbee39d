"""A copy of the journal while the daemon writes it, and what is in such a copy.

SQLite's own online backup makes the copy: one moment's content, whole, without holding the daemon
up. Reading needs the right to write beside the file (the shared index of the write-ahead log).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from superbrain.deploy.journal_file import SCHEMA_VERSION, JournalError
from superbrain.domain.deployment import Deployment

COPY_TIMEOUT_S = 20.0
_UPDATE = re.compile(r"trust\.([0-9a-f]{16})\.([0-9]+)")


class JournalFacts(msgspec.Struct, frozen=True):
    """What a journal says; `needed` are the digests of what serves and what served before it."""

    schema: int
    floors: dict[str, int]
    models: dict[str, str]
    needed: frozenset[str]
    updates: dict[str, int]
    time_floor: dt.datetime | None

    @property
    def empty(self) -> bool:
        """Whether nothing has ever been installed, and no trust update accepted."""
        return not self.floors and not self.updates


def copy_journal(source: Path, target: Path) -> None:
    """Copy the journal as it is at one moment.

    Raises:
        JournalError: it is not there, cannot be read, or is damaged; or the copy has no room.
    """
    with _reading(source), _connected(source) as there, _connected(target, "rwc") as here:
        there.backup(here)
        found = [row[0] for row in here.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError("; ".join(found))
        here.execute("PRAGMA journal_mode = DELETE")  # one file, without another beside it


def read_facts(path: Path) -> JournalFacts:
    """Read what a copy says.

    Raises:
        JournalError: it cannot be read, or is of a schema that this build does not know.
    """
    with _reading(path), _connected(path) as db:
        schema = int(db.execute("PRAGMA user_version").fetchone()[0])
        check_schema(schema, path)
        current = {row[0]: row[1] for row in db.execute("SELECT name, current FROM models")}
        bodies = {
            row[0]: msgspec.json.decode(row[1], type=Deployment)
            for row in db.execute("SELECT id, body FROM deployments")
        }
        floors = {
            row[0]: int(row[1])
            for row in db.execute("SELECT name, floor_sequence FROM models WHERE floor_sequence")
        }
        facts = dict(db.execute("SELECT name, value FROM facts")) if schema > 1 else {}
    serving = {name: bodies[number] for name, number in current.items() if number in bodies}
    previous = (bodies.get(one.predecessor) for one in serving.values())
    time_floor = facts.get("time_floor")
    return JournalFacts(
        schema=schema,
        floors=floors,
        models={name: one.version for name, one in serving.items()},
        needed=frozenset(one.digest for one in (*serving.values(), *previous) if one),
        updates=_updates(facts),
        time_floor=dt.datetime.fromisoformat(time_floor) if time_floor else None,
    )


def read_tables(path: Path, limit: int) -> dict[str, list[dict[str, Any]]]:
    """Read the newest `limit` rows of every table of a copy, JSON columns decoded.

    Raises:
        JournalError: it cannot be read.
    """
    with _reading(path), _connected(path) as db:
        db.row_factory = sqlite3.Row
        query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        return {
            name: [
                {key: _plain(row[key]) for key in row.keys()}  # noqa: SIM118 - a sqlite3.Row
                for row in db.execute(
                    f"SELECT * FROM {name} ORDER BY rowid DESC LIMIT ?",  # noqa: S608 - from the schema
                    (limit,),
                )
            ]
            for (name,) in db.execute(query).fetchall()
        }


def check_schema(schema: int, path: object) -> None:
    """Refuse a journal that this build does not know.

    Raises:
        JournalError: it is newer, or none at all.
    """
    if schema > SCHEMA_VERSION:
        msg = f"the journal {path} has schema {schema}, this build knows {SCHEMA_VERSION}"
        raise JournalError(msg, mend="Install the version that wrote it, or a newer one")
    if schema < 1:
        msg = f"{path}: expected a journal of schema 1 to {SCHEMA_VERSION}, found {schema}"
        raise JournalError(msg, mend="Take another backup")


def _updates(facts: dict[str, str]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for found in filter(None, map(_UPDATE.fullmatch, facts)):
        newest[found[1]] = max(newest.get(found[1], 0), int(found[2]))
    return newest


def _plain(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return f"{len(value)} bytes that are no JSON"


@contextlib.contextmanager
def _connected(path: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=COPY_TIMEOUT_S, isolation_level=None)
    with contextlib.closing(db):
        yield db


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, msgspec.MsgspecError, OSError) as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) == sqlite3.SQLITE_FULL:
            msg = f"the journal {path} cannot be copied: {error}"
            raise JournalError(msg, mend="Free some space there, or set TMPDIR") from error
        raise JournalError(
            f"the journal {path} cannot be read: {error}",
            mend="Run it as root or as the service's user; if it is damaged, start the daemon",
        ) from error
