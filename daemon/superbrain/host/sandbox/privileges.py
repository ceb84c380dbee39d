"""What a worker gives up for good before it meets bundle code: privileges and plenty."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from superbrain.domain.sandbox import SandboxPolicy

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITIES: Final = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
_NO_CAPABILITIES: Final = struct.pack("6I", *[0] * 6)
_MOST_CAPABILITIES: Final = 64
# Address space is more than memory, and how much more depends on libraries: this only has to be
# there before the host's memory is gone. The daemon's watch holds the limit itself.
_DATA_PER_MEMORY: Final = 2


# Of 1000: when the host runs out of memory, the kernel ends a worker before daemon and gateway.
_OUT_OF_MEMORY_SCORE: Final = 300


def give_up() -> None:
    """Gain no privileges any more, and keep no capability, not even root's.

    Root without capabilities is an ordinary user who happens to own much.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_MOST_CAPABILITIES):
        # Only root may, and only for numbers that exist; the call below is what counts.
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _check(libc.capset(_CAPABILITIES, _NO_CAPABILITIES), "capset")


def limit(policy: SandboxPolicy, *, gpu: bool) -> None:
    """Bound descriptors, file sizes and, without a GPU, writable memory; write no core dumps.

    CUDA reserves address space far beyond what it uses, so nothing of that kind is limited with it.
    Limits above those that the daemon was given itself are cut down to them.
    """
    _go_first()
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, policy.descriptors)
    _lower(resource.RLIMIT_FSIZE, policy.scratch_bytes)
    _lower(resource.RLIMIT_MSGQUEUE, 0)
    if policy.memory_bytes and not gpu:
        _lower(resource.RLIMIT_DATA, policy.memory_bytes * _DATA_PER_MEMORY)


def _go_first() -> None:
    """Be what the kernel ends first when the host has no memory left; less counts as before."""
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError):
        score.write_text(str(max(int(score.read_text()), _OUT_OF_MEMORY_SCORE)))


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
