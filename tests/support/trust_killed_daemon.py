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
from superbrain.bundle import trust_chain
from superbrain.bundle.disk import rename
from superbrain.bundle.trust_chain import SignedUpdate, TrustChain


def die() -> None:
    """End at once; nothing is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_keeping(point: str) -> None:
    """Have the process killed at a point of `TrustChain.append`."""
    append = TrustChain.append

    def append_and_die(chain: TrustChain, signed: SignedUpdate) -> None:
        if point == "before":
            die()
        append(chain, signed)
        if point == "after":
            die()

    def rename_or_die(source: Path, target: Path) -> None:
        if point == "during":
            die()
        rename(source, target)

    TrustChain.append = append_and_die  # type: ignore[method-assign,assignment]
    setattr(trust_chain, "rename", rename_or_die)  # noqa: B010 - a module is no class of ours


if __name__ == "__main__":
    die_when_keeping(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
