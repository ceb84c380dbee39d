"""The fork server, as the daemon sees it: where workers come from, ready to load a bundle.

`serve/fork_server.py` is the process behind it. The daemon becomes the parent of every orphan below
it (a subreaper), so a worker is its child like any other: its end and its status are told to the
daemon, and it dies with the daemon. The end of the fork server ends no worker; the next fork
starts another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
from typing import Final

from superbrain.deploy.child import OUTPUT_LINE_BYTES, Child, ChildError
from superbrain.domain.ctl_fork import FORK, NOT_ALONE, REPLY
from superbrain.host.events import Event
from superbrain.host.logs import event

log = logging.getLogger(__name__)

FORK_SERVER_MODULE: Final = "superbrain.serve.fork_server"
FORK_LIMIT_S: Final = 60.0  # the first fork waits for all that is imported
ATTEMPTS: Final = 3
UNKNOWN_STATUS: Final = 255
_PR_SET_CHILD_SUBREAPER: Final = 36


class ForkServerError(Exception):
    """The fork server makes no process; one that begins from nothing is as good, and slower."""


class Forked:
    """A process that the fork server made, as `asyncio.subprocess.Process` shows others."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader, awaited: set[int]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._awaited = awaited

    async def wait(self) -> int:
        """Wait for its end; its status, or below zero the signal that ended it."""
        try:
            await _end_of(self.pid)
            self.returncode = _reap(self.pid)
        except (ProcessLookupError, ChildProcessError):  # reaped by somebody, who did not say how
            self.returncode = UNKNOWN_STATUS
        self._awaited.discard(self.pid)
        return self.returncode


class ForkServer:
    """Forks processes; its own process is started when the first is asked for."""

    def __init__(self) -> None:
        self._server: Child | None = None
        self._orders: socket.socket | None = None
        self._turn = asyncio.Lock()
        self._failed = 0
        self._forks: set[asyncio.Task[Forked]] = set()
        self._awaited: set[int] = set()

    async def fork(self, channel: socket.socket) -> Forked:
        """Make a worker's process that holds `channel`.

        Raises:
            ForkServerError: there is none to fork from.
            OSError: the kernel makes no more processes.
        """
        fork = asyncio.create_task(self._fork(channel.dup()))
        self._forks.add(fork)
        fork.add_done_callback(self._forks.discard)
        try:
            return await asyncio.shield(fork)  # its answer must be read, whoever waits for it
        except asyncio.CancelledError:
            fork.add_done_callback(_abandon)
            raise

    async def stop(self) -> None:
        """End the fork server; its workers go on."""
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        if self._server is not None:
            await self._server.end()
            self._server = None

    def reap_strays(self) -> None:
        """Reap what a child left behind when it ended; who waits for a child reaps that one itself.

        Children that this server did not fork lead sessions of their own, or share this process's.
        What they forked does neither; nor does a worker that was just told to begin. While a fork
        is asked for, its answer may be under way: the worker is known when that was read.
        """
        if self._turn.locked():
            return
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                pid = found.si_pid
                if pid in self._awaited or os.getsid(pid) in (pid, os.getsid(0)):
                    return
                os.waitpid(pid, 0)

    async def _fork(self, channel: socket.socket) -> Forked:
        with channel:
            try:
                async with self._turn:
                    pid, reading = await self._worker(channel)
                    self._awaited.add(pid)
            finally:
                self.reap_strays()
        return Forked(pid, await _reader(reading), self._awaited)

    async def _worker(self, channel: socket.socket) -> tuple[int, int]:
        """Give a worker's pid, and the descriptor to read what it prints from."""
        orders = await self._running()
        reading, writing = os.pipe()
        try:
            return await self._ask(orders, channel.fileno(), writing), reading
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)

    async def _running(self) -> socket.socket:
        if self._orders is not None and self._server is not None and self._server.alive:
            return self._orders
        if self._failed >= ATTEMPTS:
            raise ForkServerError
        await self.stop()
        self._adopt_orphans()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        more = ("--fork-fd", str(theirs.fileno()))
        with theirs:
            try:
                self._server = await Child.spawn(
                    "fork server", FORK_SERVER_MODULE, more, descriptors=(theirs.fileno(),)
                )
            except ChildError as error:
                raise self._failure(error.message) from error
        event(log, Event.FORK_SERVER_STARTED, pid=self._server.pid)
        return self._orders

    def _adopt_orphans(self) -> None:
        """Be the parent of every orphan below this process, and let none of them stay a zombie."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap_strays)

    async def _ask(self, orders: socket.socket, channel: int, output: int) -> int:
        try:
            socket.send_fds(orders, [FORK], [channel, output])
            async with asyncio.timeout(FORK_LIMIT_S):
                reply = await asyncio.get_running_loop().sock_recv(orders, REPLY.size)
        except (OSError, TimeoutError) as error:
            raise await self._gone(str(error) or "took too long") from error
        if len(reply) != REPLY.size:
            raise await self._gone("ended")
        self._failed = 0
        (pid,) = REPLY.unpack(reply)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return int(pid)

    async def _gone(self, how: str) -> ForkServerError:
        server = self._server
        if server is not None:
            await server.end()
            how = server.epitaph()
            if server.process.returncode == NOT_ALONE:
                self._failed = ATTEMPTS
        return self._failure(how)

    def _failure(self, how: str) -> ForkServerError:
        self._failed += 1
        event(log, Event.FORK_SERVER_FAILED, logging.WARNING, how, attempts=self._failed)
        return ForkServerError(how)


async def _end_of(pid: int) -> None:
    loop, pidfd, ended = asyncio.get_running_loop(), os.pidfd_open(pid), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _reap(pid: int) -> int:
    """Give how a child has ended, and let it go."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _abandon(fork: asyncio.Task[Forked]) -> None:
    """Nobody holds the other end of its channel, so it ends; wait for that."""
    if not fork.cancelled() and fork.exception() is None:
        waiting = asyncio.get_running_loop().create_task(fork.result().wait())
        waiting.add_done_callback(lambda _: fork.result())  # holds both until then


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=OUTPUT_LINE_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return reader
