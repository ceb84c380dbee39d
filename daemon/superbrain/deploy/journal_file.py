"""The journal's file: SQLite with a write-ahead log and full sync, its schema, its transactions.

When a transaction has ended, what it wrote is on the disk. The schema carries a version; a journal
of a newer superbrain is refused, never guessed at.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

from superbrain.wire.errors import SuperbrainError

if TYPE_CHECKING:
    from pathlib import Path

_NO_ROOM = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN})
_FIRST_SCHEMA = """
CREATE TABLE models (
    name TEXT PRIMARY KEY,
    current INTEGER NOT NULL DEFAULT 0,
    floor_sequence INTEGER NOT NULL DEFAULT 0,
    floor_digest TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE deployments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at TEXT NOT NULL,
    live_since TEXT
) STRICT;
CREATE INDEX deployments_by_name ON deployments (name, id);
CREATE INDEX deployments_by_digest ON deployments (digest, id);
CREATE INDEX deployments_by_state ON deployments (state);
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    at TEXT NOT NULL,
    event TEXT NOT NULL,
    state_from TEXT NOT NULL,
    state_to TEXT NOT NULL,
    rung TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX transitions_by_deployment ON transitions (deployment, id);
CREATE TABLE proofs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    deployment INTEGER NOT NULL REFERENCES deployments (id),
    at TEXT NOT NULL,
    worker INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX proofs_by_deployment ON proofs (deployment, id);
CREATE TABLE bundles (
    digest TEXT PRIMARY KEY,
    signers TEXT NOT NULL,
    received_at TEXT NOT NULL
) STRICT;
"""
_FACTS = """
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
"""
# What turns a journal of schema N into one of N + 1; released ones are never edited.
_MIGRATIONS = (_FIRST_SCHEMA, _FACTS)
SCHEMA_VERSION = len(_MIGRATIONS)


class JournalError(SuperbrainError):
    """The journal cannot be opened, read or written."""


class JournalDamaged(JournalError):
    """What is there is no journal, or not all of one."""


class JournalFile:
    """An open journal. Use from one thread.

    `trouble` is what the last write failed on, None since one has succeeded.

    Raises:
        JournalDamaged: when it is opened and its content is not what SQLite wrote.
        JournalError: on every other SQLite failure, with the path and what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trouble: JournalError | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.db = self._open()
        except sqlite3.OperationalError as error:
            raise self.failure("be opened", error) from error
        except sqlite3.DatabaseError as error:
            raise self.damage(str(error)) from error
        except OSError as error:
            raise self.failure("be opened", error) from error

    def _open(self) -> sqlite3.Connection:
        """Open the file and look through it.

        On a disk that is full to the brim there is no room for the index of the write-ahead log; it
        is kept in memory then, so that what is written there can be served.
        """
        try:
            return self._connect("NORMAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _NO_ROOM:
                raise
            return self._connect("EXCLUSIVE")

    def _connect(self, locking: str) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            db.execute(f"PRAGMA locking_mode = {locking}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            found = [row[0] for row in db.execute("PRAGMA integrity_check(3)")]
            if found != ["ok"]:
                raise sqlite3.DatabaseError("; ".join(found))
            self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file; everything recorded is on the disk already."""
        self.db.close()

    def transaction(self) -> Transaction:
        """Give a transaction: `with file.transaction() as db:`."""
        return Transaction(self)

    def read(self, query: str, *values: Any) -> list[sqlite3.Row]:  # noqa: ANN401 - SQL values
        """Give every row of a query."""
        try:
            return self.db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self.failure("be read", error) from error

    def damage(self, found: str) -> JournalDamaged:
        """Say that what is there is not what was written."""
        msg = f"the journal {self.path} is damaged: {found}"
        return JournalDamaged(msg, mend="Restore it from a backup, or let it be rebuilt")

    def failure(self, what: str, error: Exception) -> JournalError:
        """Say what cannot be done with the file, and why."""
        msg = f"the journal {self.path} cannot {what}: {error}"
        mend = "Check free space, permissions and the disk, or restore it from a backup"
        return JournalError(msg, mend=mend)

    def _migrate(self, db: sqlite3.Connection) -> None:
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        if found > SCHEMA_VERSION:
            msg = f"the journal {self.path} has schema {found}, this build knows {SCHEMA_VERSION}"
            raise JournalError(msg, mend="Install the version that wrote it, or a newer one")
        for version in range(found, SCHEMA_VERSION):
            step = f"{_MIGRATIONS[version]} PRAGMA user_version = {version + 1};"
            db.executescript(f"BEGIN IMMEDIATE; {step} COMMIT;")


class Transaction:
    """Commits on success and rolls back on any exception."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._db = file.db

    def __enter__(self) -> sqlite3.Connection:
        self._execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        try:
            if isinstance(error, sqlite3.Error):
                raise self._failure(error) from error
            if kind is None:
                self._execute("COMMIT")
                self._file.trouble = None
        finally:
            if self._db.in_transaction:  # SQLite may have rolled back by itself already
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")

    def _execute(self, statement: str) -> None:
        try:
            self._db.execute(statement)
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> JournalError:
        self._file.trouble = self._file.failure("be written", error)
        return self._file.trouble
