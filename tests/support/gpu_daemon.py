"""`superbraind` whose children run in a Python that knows a rung on a GPU (gpu_python.py).

python tests/support/gpu_daemon.py --root …
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from superbrain.app.main import main
from superbrain.deploy import gpu_guard
from tests.support.other_python import other_python

if __name__ == "__main__":
    gpu_guard.STEADY_S = 1.0
    with tempfile.TemporaryDirectory() as made:
        sys.executable = other_python(Path(made), "gpu_python.py")
        code = main(sys.argv[1:])
    sys.exit(code)
