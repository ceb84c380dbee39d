"""Single keys of a terminal, read while something else is shown; the terminal is left as it was.

    with Keyboard() as keyboard:
        while keyboard.wait(2.0) != "q":
            ...

`wait` also returns at once when the window's size has changed. Without a terminal on standard input
it only waits. SIGTERM and SIGHUP end the block as Ctrl-C does, so that whatever was taken of the
terminal is given back.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from types import FrameType, TracebackType
from typing import Any, Self

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Keyboard:
    """Keys without Enter, and without an echo."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._fd: int | None = None
        self._wake_fd = -1

    def __enter__(self) -> Self:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_fd = reading
        self._stack.callback(os.close, reading)
        self._stack.callback(os.close, writing)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, before)
        self._handle(signal.SIGWINCH, lambda _number, _frame: None)
        for number in _ENDING:
            self._handle(number, _end)
        if sys.stdin.isatty():
            self._take(sys.stdin.fileno())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def wait(self, seconds: float) -> str:
        """Wait for a key; empty when the time is over or the window has changed."""
        watched = [self._wake_fd, *([self._fd] if self._fd is not None else [])]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        if self._wake_fd in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_fd, 1024)
        if self._fd is None or self._fd not in ready:
            return ""
        data = os.read(self._fd, 64)
        if not data:  # the terminal is gone
            self._fd = None
        return data[:1].decode("latin-1")

    def _handle(self, number: signal.Signals, handler: Any) -> None:  # noqa: ANN401
        self._stack.callback(signal.signal, number, signal.signal(number, handler))

    def _take(self, fd: int) -> None:
        before = termios.tcgetattr(fd)
        self._stack.callback(termios.tcsetattr, fd, termios.TCSAFLUSH, before)
        tty.setcbreak(fd)
        modes = termios.tcgetattr(fd)
        modes[6][termios.VSUSP] = b"\x00"  # a suspended program would leave its screen behind
        termios.tcsetattr(fd, termios.TCSANOW, modes)
        self._fd = fd


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
