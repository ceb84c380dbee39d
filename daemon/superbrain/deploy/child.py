"""A child process and its control channel, as the daemon sees them.

The channel is one end of a Unix socketpair (`domain.ctl` says what travels on it). Orders go one
at a time; a ping may overtake an order that is still being carried out. What a child prints is
passed on as log lines, and its last words are kept for the sentence that reports its death.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from superbrain.domain import ctl
from superbrain.domain.ctl_build import BuildProgress, FromBuilder
from superbrain.host.events import CHILDREN_TELL, Event
from superbrain.host.logs import event
from superbrain.wire.errors import SuperbrainError
from superbrain.wire.messages import UNREADABLE
from superbrain.wire.sentences import sentence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

log = logging.getLogger(__name__)

LAST_WORDS = 20
# The folder of credentials is not among them: the TCP face finds its key there (host/guarded.py),
# and a worker's sandbox keeps it out, whether it knows the name or not.
_OF_THE_DAEMON = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID"})
# Only the daemon exports spans, and what its collector is told to believe it by is secret.
_OF_ITS_EXPORT = "OTEL_"
EXIT_GRACE_S = 2.0
OUTPUT_GRACE_S = 0.5  # for output that somebody holds open who has got away
OUTPUT_LINE_BYTES = 1 << 16

_FromChild = ctl.FromWorker | ctl.FromGateway | ctl.FromTcpFace | FromBuilder
_UNASKED = (
    ctl.GatewayReady,
    ctl.Poisoned,
    ctl.LaneLost,
    ctl.Records,
    ctl.TcpReady,
    ctl.TcpRefused,
    BuildProgress,
)
_decode = msgspec.msgpack.Decoder(_FromChild).decode
_encode = msgspec.msgpack.Encoder().encode
M = TypeVar("M", bound=ctl.Message)


class ChildError(SuperbrainError):
    """A child process could not carry out an order."""

    def __init__(
        self, code: str, message: str, *, mend: str = "", bundle_at_fault: bool = False
    ) -> None:
        super().__init__(message, mend=mend)
        self.code = code
        self.bundle_at_fault = bundle_at_fault


class Process(Protocol):
    """What a child is to the operating system: `asyncio.subprocess.Process` is one."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def returncode(self) -> int | None:
        """How it ended: its status, or below zero the signal; None while it runs."""

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """What it prints."""

    async def wait(self) -> int:
        """Wait for its end; its `returncode`."""


class Child:
    """One running child process. Make it with `Child.spawn` or `Child.begin`.

    `on_message` gets what the child says unasked; `exited` is set when the process has ended, and
    `verdict` says why it was ended by us. `concerns` is what every log line about it bears.
    """

    def __init__(
        self, name: str, process: Process, writer: asyncio.StreamWriter, deployment: int = 0
    ) -> None:
        self.name = name
        self.concerns: dict[str, Any] = {"deployment": deployment} if deployment else {}
        self.process = process
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:  # it has ended already, which is told like any other end
            self._pidfd = -1
        self._writer = writer
        self.exited = asyncio.Event()
        self.on_message: Callable[[ctl.Message], None] = lambda _message: None
        self._order = asyncio.Lock()
        self._replies: collections.deque[asyncio.Future[_FromChild]] = collections.deque()
        self._pong: asyncio.Future[_FromChild] | None = None
        self.verdict: ChildError | None = None
        self._last_words: collections.deque[str] = collections.deque(maxlen=LAST_WORDS)
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def spawn(
        cls,
        name: str,
        module: str,
        arguments: Sequence[str] = (),
        on_message: Callable[[ctl.Message], None] | None = None,
        *,
        descriptors: Sequence[int] = (),
        deployment: int = 0,
    ) -> Child:
        """Start `python -I -m MODULE --ctl-fd N ARGUMENTS…`; it inherits `descriptors` too.

        Raises:
            ChildError: it cannot be started.
        """
        start = partial(_execute, module, arguments, descriptors)
        return await cls.begin(name, start, on_message, deployment=deployment)

    @classmethod
    async def begin(
        cls,
        name: str,
        start: Callable[[socket.socket], Awaitable[Process]],
        on_message: Callable[[ctl.Message], None] | None = None,
        *,
        deployment: int = 0,
    ) -> Child:
        """Let `start` make a process that holds the other end of a control channel.

        It works on behalf of a deployment, or of none.

        Raises:
            ChildError: it cannot be started.
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise _not_started(name, error) from error
        with theirs:
            reader, writer = await _connected(ours)
            # From when the process is there nothing is waited for: a start that is given up leaves
            # no process behind that nobody knows.
            try:
                child = cls(name, await start(theirs), writer, deployment)
            except BaseException as error:
                writer.close()  # which ends the process
                if isinstance(error, OSError):
                    raise _not_started(name, error) from error
                raise
        if on_message is not None:
            child.on_message = on_message
        child._tasks = [
            asyncio.create_task(child._listen(reader)),
            output := asyncio.create_task(child._pass_output_on()),
            asyncio.create_task(child._wait(output)),
        ]
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """True until the process has ended."""
        return not self.exited.is_set()

    async def order(
        self, message: ctl.Message, expected: type[M], timeout_s: float, mend: str = ""
    ) -> M:
        """Send one order and wait for its answer; `mend` is for the case that none comes in time.

        Raises:
            ChildError: the child refused, died, or took longer than `timeout_s` seconds.
        """
        async with self._order:
            answer = asyncio.get_running_loop().create_future()
            self._send(message)
            self._replies.append(answer)  # also when nobody waits any more: it takes its reply
            try:
                async with asyncio.timeout(timeout_s):
                    reply = await answer
            except TimeoutError:
                msg = f"{self.name} did not finish {type(message).__name__} within {timeout_s:g} s"
                raise ChildError("TIMED_OUT", msg, mend=mend) from None
        if isinstance(reply, ctl.Failed):
            raise ChildError(
                reply.code, reply.message, mend=reply.mend, bundle_at_fault=reply.bundle_at_fault
            )
        if not isinstance(reply, expected):
            msg = f"{self.name}: expected {expected.__name__}, found {type(reply).__name__}"
            raise ChildError("PROTOCOL", msg)
        return reply

    async def ping(self, expected: type[M], timeout_s: float) -> M | None:
        """Ask for the child's figures; None when it does not answer in time."""
        if self._pong is not None or not self.alive:
            return None
        self._pong = asyncio.get_running_loop().create_future()
        try:
            self._send(ctl.Ping())
            async with asyncio.timeout(timeout_s):
                reply = await self._pong
        except (TimeoutError, ChildError):
            return None
        finally:
            self._pong = None
        return reply if isinstance(reply, expected) else None

    def kill(self) -> None:
        """End the process at once.

        Not `self.process.kill()`: that would reap the child behind asyncio's back, and its exit
        status would be lost. A pidfd can also never hit a stranger who got the same number.
        """
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def condemn(self, verdict: ChildError) -> None:
        """End the process at once for a reason, which is what its orders fail with."""
        self.verdict = self.verdict or verdict
        self.kill()

    async def end(self) -> None:
        """Close the channel, which ends the child; kill it if it does not go."""
        self._writer.close()
        try:
            async with asyncio.timeout(EXIT_GRACE_S):
                await self.exited.wait()
        except TimeoutError:
            self.kill()
            await self.exited.wait()

    def epitaph(self) -> str:
        """Say how the process ended, with its last words."""
        if self.verdict is not None:
            return self.verdict.message
        code = self.process.returncode
        if code is None:
            how = "is still running"
        elif code < 0:
            how = f"was ended by {_signal_name(-code)}"
        else:
            how = f"exited with status {code}"
        words = " | ".join(self._last_words)
        return f"{self.name} {how}" + (f"; its last words: {words[-500:]}" if words else "")

    def _death(self) -> ChildError:
        return self.verdict or ChildError("DIED", self.epitaph())

    def _send(self, message: ctl.Message) -> None:
        if not self.alive:
            raise self._death()
        data = _encode(message)
        self._writer.write(ctl.LENGTH.pack(len(data)) + data)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = ctl.LENGTH.unpack(await reader.readexactly(ctl.LENGTH.size))
                if size > ctl.MAX_MESSAGE_BYTES:
                    self._misunderstood(f"a message of {size} bytes")
                    break
                try:
                    message = _decode(await reader.readexactly(size))
                except UNREADABLE as error:
                    self._misunderstood(str(error))
                    break
                self._hand_out(message)
        self.kill()

    def _misunderstood(self, found: str) -> None:
        """End a child that says what no child of ours says: something else speaks in it."""
        message = f"{self.name}: expected a message of its control channel, found: {found}"
        mend = "Ask the author what the bundle's code does to the process that it runs in"
        self.condemn(ChildError("PROTOCOL", sentence(message), mend=mend))

    def _hand_out(self, message: _FromChild) -> None:
        if isinstance(message, (ctl.WorkerPong, ctl.GatewayPong, ctl.TcpPong)):
            waiting = self._pong
        elif isinstance(message, _UNASKED):
            self.on_message(message)
            return
        else:
            waiting = self._replies.popleft() if self._replies else None
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    async def _pass_output_on(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - spawned with a pipe
        while True:
            try:
                line = await self.process.stdout.readline()
            except ValueError:  # longer than the limit: the stream dropped it
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._last_words.append(text)
            name, told = _told(text)
            event(log, name, child=self.name, pid=self.pid, **self.concerns, told=told)

    async def _wait(self, output: asyncio.Task[None]) -> None:
        await self.process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it may have forked goes with it
        await asyncio.wait({output}, timeout=OUTPUT_GRACE_S)  # its last words may be under way
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self.exited.set()
        self._writer.close()
        for waiting in (*self._replies, self._pong):
            if waiting is not None and not waiting.done():
                waiting.set_exception(self._death())


async def _connected(
    ours: socket.socket,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(sock=ours)
    except BaseException:
        ours.close()
        raise


async def _execute(
    module: str, arguments: Sequence[str], descriptors: Sequence[int], channel: socket.socket
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", module, "--ctl-fd", str(channel.fileno()), *arguments),
        pass_fds=(channel.fileno(), *descriptors),
        start_new_session=True,
        env=_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=OUTPUT_LINE_BYTES,
    )


def _told(line: str) -> tuple[str, object]:
    """Read the name and the fields of an event that a child logged; any other line is output."""
    if line.startswith("{"):
        with contextlib.suppress(*UNREADABLE):
            fields = msgspec.json.decode(line, type=dict[str, object])
            if (name := fields.pop("event", None)) in CHILDREN_TELL:
                return str(name), fields
    return Event.CHILD_OUTPUT, line


def _environment() -> dict[str, str]:
    """Give what a child inherits: nothing that speaks for the daemon to others."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_THE_DAEMON and not name.startswith(_OF_ITS_EXPORT)
    }


def _not_started(name: str, error: OSError) -> ChildError:
    mend = "Check memory, process and descriptor limits"
    return ChildError("SPAWN_FAILED", f"{name} cannot be started: {error}", mend=mend)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
