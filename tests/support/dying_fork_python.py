"""A Python whose fork server is ended by SIGKILL when it has forked, before it can say whom.

dying_fork_python.py -I -m MODULE ARGUMENTS…
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    module, arguments = sys.argv[3], sys.argv[4:]
    socket.socket.send = _die  # type: ignore[method-assign, assignment]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
