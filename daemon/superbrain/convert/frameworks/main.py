"""The child's main loop: `python -I main.py MODULE` reads orders from standard input and obeys.

The operations are the methods of `desk.Desk`. Whatever a framework prints goes to standard error,
so that the answers on standard output stay readable.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

PACKAGE = "superbrain_frameworks"


def main(module: str) -> None:
    """Obey until the parent closes the pipe."""
    with own_standard_output() as answers:
        _make_package()
        warnings.simplefilter("ignore")
        desk = importlib.import_module(f"{PACKAGE}.desk").Desk(module)
        for line in sys.stdin:
            answers.write(json.dumps(_obey(desk, json.loads(line))) + "\n")
            answers.flush()


@contextlib.contextmanager
def own_standard_output() -> Iterator[TextIO]:
    """Keep standard output for answers; everybody else's prints go to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        yield answers


def _make_package() -> None:
    """Make the folder a package of its own name, so that no module in it hides a library's."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        PACKAGE, here / "__init__.py", submodule_search_locations=[str(here)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{here}: expected a package, found none")
    sys.modules[PACKAGE] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


def _obey(desk: Any, order: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": desk.obey(order)}
    except Exception as error:
        traceback.print_exc()
        code = getattr(error, "code", None)
        message = getattr(error, "message", "") or f"{type(error).__name__}: {_short(error)}"
        mend = str(getattr(error, "mend", ""))
        known = code if isinstance(code, str) else ""
        return {"error": {"code": known, "message": message, "mend": mend}}


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines) if len(lines) <= 3 else f"{lines[0]} … {lines[-1]}"
    return text if len(text) <= 600 else f"{text[:300]} … {text[-300:]}"


if __name__ == "__main__":
    main(sys.argv[1])
