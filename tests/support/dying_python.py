"""A Python whose fork server, or a process that it forks, is ended by SIGKILL at a moment.

dying_python.py answer|session -I -m MODULE ARGUMENTS…

answer: the fork server, when it has forked, before it can say whom.
session: the worker, when it was told to begin, before it has a session of its own.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
from typing import Any, Final

MOMENTS: Final[dict[str, tuple[Any, str]]] = {
    "answer": (socket.socket, "send"),
    "session": (os, "setsid"),
}


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    moment, module, arguments = sys.argv[1], sys.argv[4], sys.argv[5:]
    setattr(*MOMENTS[moment], _die)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
