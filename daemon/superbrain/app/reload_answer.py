"""What `superbrain reload` answers: what was read, what holds now, what waits for a restart.

Somebody reloads so that something new can come. Where it cannot, although all was read, the answer
says that too, with what to do; the reload itself was carried out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from superbrain.domain.health import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def reload_answer(
    keys: int | None,
    trust: Sequence[Problem],
    inbox: Problem | None,
    applied: Sequence[str],
    waiting: Sequence[str],
) -> str:
    """Put the answer together.

    Args:
        keys: how many are trusted; None: the folder does not count, and `trust` says why.
        trust: why no bundle can be verified, if none can.
        inbox: why the inbox cannot be looked through, if it cannot.
        applied: sentences about what holds now.
        waiting: what needs a restart.
    """
    read = f"the trust folder was read again {_counted(keys)}"
    looked = "" if inbox else " and the inbox is looked through"
    done = [f"{read}{looked}", *applied, *(f"{change} needs a restart" for change in waiting)]
    warnings = [
        f". Warning: no new bundle is taken: {problem.message}. {problem.mend}"
        for problem in (*trust, *([inbox] if inbox else []))
    ]
    return "; ".join(done) + "".join(warnings)


def _counted(keys: int | None) -> str:
    if keys is None:
        return "and does not count"
    return f"({keys} key{'' if keys == 1 else 's'})"


def inbox_problem(path: Path) -> Problem | None:
    """Say why nothing can be taken from the inbox, if that is so."""
    found = ""
    try:
        os.scandir(path).close()
    except OSError as error:
        found = f"cannot be read: {error.strerror}"
    else:
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            found = "is expected to be readable and writable, and it is not"
    mend = f"Give the user that runs superbraind a folder there (install -d {path})"
    return Problem("critical", "inbox", f"the inbox {path} {found}", mend) if found else None
