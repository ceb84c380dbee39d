"""Standard output and error, whatever they are: closed, full, or unable to spell a character.

What a command found out does not depend on who can read it. `prepare` makes both writable; what
cannot be written all the same is an OSError when it is flushed, and `forget` keeps the
interpreter from trying once more while it ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Final, TextIO, cast

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}  # in the order of their descriptors


def prepare() -> None:
    """Lead closed streams to nowhere; what standard output cannot spell is a `?` there."""
    for name, mode in _MODES.items():
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere(mode))
    stdout = sys.stdout
    if isinstance(stdout, io.TextIOWrapper) and stdout.errors != _errors(stdout):
        stdout.reconfigure(errors=_errors(stdout))


def stdout_fails() -> bool:
    """Whether what was printed cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def forget(stream: TextIO) -> None:
    """Nobody reads it: let the interpreter's last flush go nowhere instead of raising."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def try_to_print(text: str, stream: TextIO | None = None) -> None:
    """Print a text; where nobody can read it, nothing else depends on that."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        forget(stream)


def _nowhere(mode: str) -> TextIO:
    """The null device takes the lowest descriptor, which is the closed one: no file becomes it."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    return cast("TextIO", open(descriptor, mode, encoding="utf-8", closefd=False))


def _errors(stream: io.TextIOWrapper) -> str:
    """File names that are no UTF-8 go through UTF-8 as they came, where Python lets them."""
    as_they_came = stream.errors == "surrogateescape" and stream.encoding.lower() == "utf-8"
    return "surrogateescape" if as_they_came else "replace"
