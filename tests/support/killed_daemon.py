"""`superbraind` that ends itself with SIGKILL right after its Nth write to the journal.

    python tests/support/killed_daemon.py N --root …

Not an orderly end of any kind: no handler runs, nothing is flushed. N counts from the end of the
recovery, so that the same N means the same step whatever was there before.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from superbrain.app.main import main
from superbrain.deploy.journal import Journal
from superbrain.deploy.recovery import Recovery

WRITES = ("create", "record", "make_current", "clear_current", "accept", "add_proof")


def kill_after(limit: int) -> None:
    """Have the process killed after `limit` writes that follow the recovery."""
    left = [limit]
    counting = [False]

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def and_perhaps_die(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - any signature
            result = write(*arguments, **named)
            left[0] -= counting[0]
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return and_perhaps_die

    recover = Recovery.recover

    async def recover_then_count(recovery: Recovery) -> None:
        await recover(recovery)
        counting[0] = True

    for name in WRITES:
        setattr(Journal, name, counted(getattr(Journal, name)))
    Recovery.recover = recover_then_count  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    kill_after(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
