"""Releases that differ from a wheelhouse's own: one that is newer, and one that is broken.

`newer` serves as before. `broken` starts, but its workers end at once, so that no model comes up:
what an upgrade must notice although the daemon itself runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import Final

CHANGES: Final = {
    "newer": ("superbrain/__init__.py", b"\n# newer\n"),
    "broken": ("superbrain/serve/worker.py", b"\nraise SystemExit('a broken release')\n"),
}


def changed_release(wheelhouse: Path, parent: Path, name: str) -> Path:
    """Make `parent`/NAME, a wheelhouse like `wheelhouse` with one file of superbrain changed."""
    release = parent / name
    shutil.copytree(wheelhouse, release, copy_function=os.link)
    (wheel,) = (release / "wheels").glob("superbrain-*.whl")
    changed = wheel.with_suffix(".new")
    _rewrite(wheel, changed, *CHANGES[name])
    changed.replace(wheel)
    sums = release / "SHA256SUMS"
    path = f"./wheels/{wheel.name}"
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(path)]
    sums.unlink()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    sums.write_text("\n".join([*lines, f"{digest}  {path}"]) + "\n")
    return release


def _rewrite(source: Path, target: Path, member: str, addition: bytes) -> None:
    """Copy a wheel; `addition` goes after the docstring and imports from the future of `member`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == member:
                data = _added(data, addition)
            new.writestr(info, data)


def _added(source: bytes, addition: bytes) -> bytes:
    mark = b"from __future__ import annotations\n"
    before, found, after = source.partition(mark)
    return before + found + addition + after if found else source + addition
