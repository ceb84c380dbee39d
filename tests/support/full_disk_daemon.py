"""`superbraind` whose journal is on a full disk for as long as a file exists.

    python tests/support/full_disk_daemon.py MARKER --root …

While MARKER exists every write to the journal fails as SQLite fails on a full disk.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

from superbrain.app.main import main


def fill_while(marker: Path) -> None:
    """Have every write of the journal fail while `marker` exists."""
    connect = sqlite3.connect

    class FullWhile(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
            if sql.startswith(("INSERT", "UPDATE")) and marker.exists():
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *arguments)

    def connect_full(*arguments: Any, **named: Any) -> sqlite3.Connection:  # noqa: ANN401
        return connect(*arguments, factory=FullWhile, **named)

    sqlite3.connect = connect_full  # type: ignore[assignment]


if __name__ == "__main__":
    fill_while(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
