"""`superbrain top` as a program: on a terminal that it gives back as it was, and into a pipe."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import itertools
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from superbrain.cli.main import main
from superbrain.domain.operations import (
    AnyOperation,
    AnyReply,
    GetHealth,
    GetHistory,
    HealthReply,
    HistoryReply,
    Operation,
)
from tests.support.control import Answer, ControlServer
from tests.support.reports import NOON, full_health, sample_transitions

pytestmark = pytest.mark.integration
PATIENCE_S = 60.0
ALTERNATE, BACK, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def advancing() -> Callable[[AnyOperation], AnyReply]:
    """Answer with a report that is a second younger each time."""
    seconds = itertools.count()

    def answer(_: AnyOperation) -> AnyReply:
        at = NOON + dt.timedelta(seconds=next(seconds))
        return HealthReply(msgspec.structs.replace(full_health(), at=at, counted_at=at))

    return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    answers: dict[type[Operation], Answer] = {
        GetHealth: advancing(),
        GetHistory: HistoryReply(sample_transitions()),
    }
    with ControlServer(tmp_path / "control.sock", answers) as server:
        yield server


class Terminal:
    """`superbrain top` on a terminal of its own."""

    def __init__(self, endpoint: str, columns: int = 80, lines: int = 24) -> None:
        self.seen = b""
        self._fd, inner = pty.openpty()
        self._inner = inner
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(inner)
        command = [
            "setsid",
            "--ctty",
            sys.executable,
            "-m",
            "superbrain.cli.main",
            "top",
            "--interval",
            "0.2",
        ]
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            [*command, "--control", endpoint],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)
        os.close(self._inner)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def read_until(self, *wanted: bytes) -> bytes:
        """Read on until all of it has been shown since the last call."""
        shown, end = b"", time.monotonic() + PATIENCE_S
        while not all(one in shown for one in wanted):
            assert time.monotonic() < end, f"waited in vain for {wanted}: {shown[-3000:]!r}"
            shown += self._read(1.0)
        self.seen += shown
        return shown

    def ended(self) -> int:
        """Read to the end; the exit status."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, "it did not end"
            self.seen += self._read(0.1)
        self.seen += self._read(0.1)
        return self.process.returncode

    def _read(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self._fd], [], [], seconds)
        with contextlib.suppress(OSError):
            return os.read(self._fd, 1 << 16) if ready else b""
        return b""

    def is_as_before(self) -> bool:
        """Whether modes, screen and cursor are those of before."""
        clean = self.seen.rindex(BACK) > self.seen.rindex(ALTERNATE)
        return clean and SHOW_CURSOR in self.seen and termios.tcgetattr(self._inner) == self.modes


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda terminal: terminal.type(b"q"), 0),
        (lambda terminal: terminal.type(b"\x03"), 0),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
    ],
    ids=["q", "Ctrl-C", "SIGTERM"],
)
def test_however_it_ends_the_terminal_is_as_before(
    server: ControlServer, end: Callable[[Terminal], object], status: int
) -> None:
    with Terminal(server.endpoint) as terminal:
        terminal.read_until(ALTERNATE, b"orientation", b"q quits")
        assert termios.tcgetattr(terminal._inner) != terminal.modes, "keys are read one by one"
        end(terminal)
        assert terminal.ended() == status
        assert terminal.is_as_before()


def test_it_follows_the_size_of_its_window_and_what_happens(server: ControlServer) -> None:
    with Terminal(server.endpoint) as terminal:
        assert b"queue pre engine post" not in terminal.read_until(b"q quits")
        terminal.resize(200, 50)
        terminal.read_until(b"queue pre engine post", b"q quits")
        terminal.type(b"x")  # means nothing
        terminal.read_until(b"q quits")
        server.stop()
        terminal.read_until(b"superbraind is not running", b"this is how it was")
        terminal.type(b"q")
        assert terminal.ended() == 0
        assert terminal.is_as_before()


def command(server: ControlServer, *words: str) -> list[str]:
    return ["top", "--control", server.endpoint, "--interval", "0.1", *words]


def test_once_is_two_looks_and_one_picture(
    server: ControlServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(server, "--once")) == 0
    text = capsys.readouterr().out
    assert text.count("superbrain 0.1.0 on edge-7") == 1
    assert "q quits" not in text
    assert sum(isinstance(one, GetHealth) for one in server.asked) == 2


def test_once_as_json_has_rates_load_and_events(
    server: ControlServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(server, "--once", "--json")) == 0
    top = json.loads(capsys.readouterr().out)
    assert top["over_s"] == 1.0
    ocr = next(model for model in top["models"] if model["name"] == "ocr")
    assert (ocr["requests_per_second"], ocr["candidate"]["percent"]) == (0.0, 37.0)
    assert top["recent"][0]["state_to"] == "LIVE"
    assert top["gpus"][0]["name"] == "NVIDIA L4"


def test_json_is_a_line_for_every_look_until_it_is_interrupted(server: ControlServer) -> None:
    words = command(server, "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "superbrain.cli.main", *words], stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        looks: list[dict[str, Any]] = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    assert len({look["at"] for look in looks}) == 3


@pytest.mark.parametrize("words", [["--interval", "0"], ["--interval", "fast"]])
def test_a_wrong_interval_is_said_before_anything_else(
    server: ControlServer, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--control", server.endpoint, *words]) == 2
    assert "--interval" in capsys.readouterr().err
    assert not server.asked


def test_without_a_daemon_it_says_so_and_takes_no_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--control", f"ipc://{tmp_path}/none.sock"]) == 1
    captured = capsys.readouterr()
    assert "superbraind is not running" in captured.err
    assert not captured.out
