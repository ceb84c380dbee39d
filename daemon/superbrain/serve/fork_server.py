"""The process that workers are forked from: it has imported all they need, and does nothing else.

    python -I -m superbrain.serve.fork_server --ctl-fd N --fork-fd M

To import numpy and ONNX Runtime takes a worker twenty times as long as to load a small model. This
process has done it once. For every message on M, which brings a control channel and a pipe for what
is printed, it forks a process that goes on as `worker_process`, and answers with its pid. That
process is the daemon's child, not this one's: who forked it has ended, and the daemon adopts such
orphans. No code of any bundle ever runs here, and a worker closes its sandbox as it always did.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from superbrain.domain.ctl_fork import FORK, NOT_ALONE, REPLY
from superbrain.engines.onnx_session import import_library
from superbrain.engines.port import NotInstalled
from superbrain.host.process_title import set_process_title
from superbrain.serve import child, worker_process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OUTPUTS: Final = (1, 2)
_TOLD: Final = b"1"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    parser = child.argument_parser("superbrain-fork-server", "Fork workers.")
    parser.add_argument("--fork-fd", type=int, required=True, help="inherited channel of orders")
    options = parser.parse_args(arguments)
    lifeline = child.adopt(options.ctl_fd)
    with socket.socket(fileno=options.fork_fd) as orders:
        os.set_inheritable(options.fork_fd, False)
        _import_all()
        _stay_alone()
        gc.collect()
        gc.freeze()  # so that pages stay shared with the workers
        _serve(orders)
    lifeline.close()
    child.end()


def _import_all() -> None:
    for module in ("superbrain.serve.served_bundle", "superbrain.serve.worker"):
        importlib.import_module(module)
    with suppress(NotInstalled):  # a worker that needs it says so
        import_library()


def _stay_alone() -> None:
    """End unless this process has a single thread: what another one holds stays held in a fork.

    OpenBLAS ends its threads before a fork and starts new ones when they are needed.
    """
    _fork_and_wait(lambda: None)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        sys.stderr.write(f"expected one thread before a fork, found {threads}\n")
        sys.stderr.flush()
        child.end(NOT_ALONE)


def _serve(orders: socket.socket) -> None:
    """Carry out orders until the channel ends."""
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, len(FORK), 2)
        if order != FORK:
            return
        ctl_fd, output_fd = descriptors
        pid, adopt = _fork_worker(ctl_fd, output_fd)
        orders.send(REPLY.pack(pid))
        if pid > 0:
            with suppress(BrokenPipeError):  # it has ended by now, as the daemon will see
                os.write(adopt, _TOLD)
        for descriptor in (adopt, ctl_fd, output_fd):
            os.close(descriptor)


def _fork_worker(ctl_fd: int, output_fd: int) -> tuple[int, int]:
    """Fork a process that forks the worker and ends, so that the daemon adopts it.

    Returns:
        The worker's pid, or below zero why there is none, and a descriptor: it waits for a byte
        from that, which says that the daemon knows of it. By then the daemon is its parent. Only
        then does it lead a session of its own: of whoever does the daemon thinks that somebody
        waits for its end, and one that was never told of would stay a zombie, before all others.
    """
    told, tell = os.pipe()
    adopted, adopt = os.pipe()

    def middle() -> None:
        try:
            if os.fork() == 0:
                os.write(tell, REPLY.pack(os.getpid()))
                os.close(tell)
                os.close(adopt)
                if not os.read(adopted, len(_TOLD)):  # the fork server has ended before
                    child.end(1)
                os.setsid()
                _become_worker(ctl_fd, output_fd)
        except OSError as error:
            os.write(tell, REPLY.pack(-(error.errno or errno.EAGAIN)))

    try:
        _fork_and_wait(middle)
    except OSError as error:
        os.write(tell, REPLY.pack(-(error.errno or errno.EAGAIN)))
    os.close(tell)
    reply = os.read(told, REPLY.size) or REPLY.pack(-errno.EAGAIN)  # it was ended at once
    os.close(told)
    os.close(adopted)
    return REPLY.unpack(reply)[0], adopt


def _fork_and_wait(action: Callable[[], object]) -> None:
    """Do something in a forked process, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            child.end()
    os.waitpid(pid, 0)


def _become_worker(ctl_fd: int, output_fd: int) -> NoReturn:
    """Leave nothing of this process but what it has imported."""
    for number in _OUTPUTS:
        os.dup2(output_fd, number)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names of descriptors
        if int(name) not in (0, *_OUTPUTS, ctl_fd):
            with suppress(OSError):  # the one that lists them is closed already
                os.close(int(name))
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()  # Python's own is seeded anew by the fork; older numpy imports this one
    words = ["--ctl-fd", str(ctl_fd)]
    program = [sys.executable, "-I", "-m", "superbrain.serve.worker_process", *words]
    set_process_title(program)
    try:
        worker_process.main(words)
    except BaseException:  # noqa: BLE001 - says it and ends, as a Python of its own would
        traceback.print_exc()
        sys.stderr.flush()
        child.end(1)


if __name__ == "__main__":
    main(sys.argv[1:])
