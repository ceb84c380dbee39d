"""What gateway and worker do first: tie their life to the daemon's, leave signals to it, log.

A child must never outlive its daemon, or two of them would own the same sockets: the kernel kills
it when its parent dies, and the end of the control channel ends it as well.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import struct
import sys
from typing import NoReturn

import msgspec

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEEP_BYTES = 32 << 20
_UCRED = struct.Struct("3i")


def argument_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Give the parser with what every child takes: the inherited control channel."""
    parser = argparse.ArgumentParser(prog=program, description=description)
    parser.add_argument("--ctl-fd", type=int, required=True, help="inherited control channel")
    return parser


def adopt(ctl_fd: int) -> socket.socket:
    """Take over the inherited control channel and bind this process's life to the daemon's."""
    channel = socket.socket(fileno=ctl_fd)
    channel.setblocking(True)
    os.set_inheritable(ctl_fd, False)
    libc = ctypes.CDLL(None, use_errno=True)
    _keep_freed_memory(libc)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # A parent that died before prctl sends no signal any more. Who made the socketpair is known.
    daemon_pid, _, _ = _UCRED.unpack(
        channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    if os.getppid() != daemon_pid:
        end()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return channel


def _keep_freed_memory(libc: ctypes.CDLL) -> None:
    """Let glibc keep some memory between requests instead of faulting in fresh pages for each."""
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def end(status: int = 0) -> NoReturn:
    """End the process at once: no cleanup can be waited for, bundle code may hold any thread."""
    os._exit(status)


def log(event: str, **fields: str | float) -> None:
    """Write one JSON line to standard error, where the daemon's journal picks it up."""
    line: dict[str, str | float] = {"event": event, **fields}
    sys.stderr.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stderr.buffer.flush()
