"""`superbraind` whose builders can be bent and whose workers pretend to run engines.

python tests/support/engine_daemon.py --root …

Its children run in engine_python.py. What a builder does wrong stands in the file that
`$BUILDER_FAULT` names, and one that hangs is given up soon.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from superbrain.app.main import main
from superbrain.deploy import workshop
from tests.support.other_python import other_python

if __name__ == "__main__":
    workshop.GRACE_S = 1.0
    with tempfile.TemporaryDirectory() as made:
        sys.executable = other_python(Path(made), "engine_python.py")
        code = main(sys.argv[1:])
    sys.exit(code)
