"""`superbraind` whose children run in a Python that knows a rung on a GPU (gpu_python.py).

python tests/support/gpu_daemon.py --root …
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from superbrain.app.main import main
from superbrain.deploy import gpu_guard


def python_with_a_gpu(folder: Path) -> str:
    """Make a program that is started like Python."""
    path = folder / "python"
    script = Path(__file__).with_name("gpu_python.py")
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {script} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return os.fspath(path)


if __name__ == "__main__":
    gpu_guard.STEADY_S = 1.0
    with tempfile.TemporaryDirectory() as made:
        sys.executable = python_with_a_gpu(Path(made))
        code = main(sys.argv[1:])
    sys.exit(code)
