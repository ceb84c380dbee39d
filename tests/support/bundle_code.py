"""Loads bundle code by its path, as a worker does: siblings by plain name.

Every load gives fresh modules and leaves none behind, so that two bundles may both have a pipeline.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import superbrain
from superbrain.cli.template.sources import source_of

Untyped = Any  # what comes out of bundle code, which has no types for the checker
TEMPLATES = Path(superbrain.__file__).parent / "templates"


def load_module(file: Path) -> ModuleType:
    """Import one file, with the files beside it."""
    before = set(sys.modules)
    sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(file.stem)
    finally:
        sys.path.remove(str(file.parent))
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin is not None and Path(origin).is_relative_to(file.parent):
                del sys.modules[name]


def load_template(folder: Path, file: str, **constants: object) -> Untyped:
    """Import a template's file, such as "detection/pipeline.py", with these constants.

    It and all that it may import are written to `folder`, as `bundle init` does.
    """
    template = file.split("/", maxsplit=1)[0]
    for path in [*TEMPLATES.glob("shared/*.py"), *TEMPLATES.glob(f"{template}/*.py")]:
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    loaded = folder / Path(file).name
    loaded.write_text(source_of(file, constants), encoding="utf-8")
    return load_module(loaded)
