"""`superbraind` that ends itself with SIGKILL while it keeps a trust update.

    python tests/support/trust_killed_daemon.py before|during|after --root …

`before` anything is written, `during`: the file lies beside its place, `after`: it is in its place
and nothing else knows of it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from superbrain.app.main import main
from superbrain.bundle.trust_chain import SignedUpdate, TrustChain


def die() -> None:
    """End at once; nothing is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_keeping(point: str) -> None:
    """Have the process killed at a point of `TrustChain.append`."""
    append, replace = TrustChain.append, Path.replace

    def append_and_die(chain: TrustChain, signed: SignedUpdate) -> None:
        if point == "before":
            die()
        append(chain, signed)
        if point == "after":
            die()

    def replace_or_die(path: Path, target: Path) -> Path:
        if point == "during" and path.suffix == ".part":
            die()
        return replace(path, target)

    TrustChain.append = append_and_die  # type: ignore[method-assign,assignment]
    Path.replace = replace_or_die  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    die_when_keeping(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
