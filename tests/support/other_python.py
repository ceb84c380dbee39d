"""A program in the place of Python, which a daemon under test starts its children with."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path


def other_python(folder: Path, script: str, *words: str) -> str:
    """Make a program that is started like Python and runs `script` of this folder instead.

    The script is given `words` before those that Python was given.
    """
    path = folder / "python"
    instead = Path(__file__).with_name(script)
    command = shlex.join([sys.executable, "-I", os.fspath(instead), *words])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return os.fspath(path)
