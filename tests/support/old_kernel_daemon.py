"""A daemon on a kernel without Landlock: that call is answered ENOSYS, here and in all children.

python old_kernel_daemon.py --root DIR …
"""

from __future__ import annotations

import ctypes
import errno
import sys

from superbrain.app.main import main
from superbrain.host.sandbox import filter as seccomp

LANDLOCK_CREATE_RULESET = 444
PR_SET_NO_NEW_PRIVS = 38

PROGRAM: list[seccomp.Step | seccomp.Place] = [
    seccomp.Step(seccomp.LOAD, seccomp.NUMBER_AT),
    seccomp.Step(seccomp.JUMP_EQUAL, LANDLOCK_CREATE_RULESET, "none"),
    seccomp.Step(seccomp.RETURN, seccomp.ALLOW),
    seccomp.Place("none"),
    seccomp.Step(seccomp.RETURN, seccomp.ERROR | errno.ENOSYS),
]

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    seccomp.apply(seccomp.assemble(PROGRAM))
    sys.exit(main(sys.argv[1:]))
