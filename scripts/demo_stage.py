"""Where the demo plays: a temporary folder with an author's files and a host, and its one daemon.

    FOLDER/                 what the author works in; every command is typed here
    FOLDER/host/            all of a superbrain host: inbox, trust, state, sockets
    FOLDER/daemon.log

Leaving the `with` block stops the daemon and removes the folder, however it is left; should this
program itself be killed, the daemon gets a SIGTERM from the kernel.
"""

from __future__ import annotations

import ctypes
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from scripts.demo_page import INDENT, ClaimBroken, Page
from superbrain.cli.control import ControlClient, ControlError
from superbrain.domain.health import Health
from superbrain.domain.operations import (
    GetHealth,
    GetHistory,
    GetReport,
    HealthReply,
    HistoryReply,
    ReportReply,
    Transition,
)
from superbrain.domain.proof import Proof

REPOSITORY = Path(__file__).resolve().parents[1]
PATIENCE_S = 60.0
LOOK_AGAIN_S = 0.05
LOG_LINES = 15
LOG_WIDTH = 300
# The kernel allows 107 characters for a socket's path.
LONGEST_FOLDER = 60
_PR_SET_PDEATHSIG = 1

T = TypeVar("T")


class CommandFailed(Exception):
    """A command of the demo did not end with the exit code it should have."""


class Stage:
    """A temporary folder, the commands typed in it, and a daemon."""

    def __init__(self, page: Page, *, keep: bool) -> None:
        self.page = page
        self.keep = keep
        self.folder = _temporary_folder()
        self.host = self.folder / "host"
        self.log = self.folder / "daemon.log"
        self.endpoint = f"ipc://{self.host}/run/infer.sock"
        self.control = ControlClient(f"ipc://{self.host}/run/control.sock")
        self.environment = self._environment()
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_daemon()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- commands -----------------------------------------------------------------------------

    def run(
        self, command: str, *, expected: int = 0, where: Path | None = None, at_most: int = 100
    ) -> str:
        """Show a command line, run it, show (`at_most` lines of) what it prints, and give that.

        Raises:
            CommandFailed: its exit code is not `expected`.
        """
        self.page.typed(command)
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=where or self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        printed: list[str] = []
        try:
            for line in self._as_they_come(process.stdout or ()):
                printed.append(line)
                if len(printed) <= at_most:
                    self.page.output(line)
            code = process.wait()
        finally:
            process.kill()
        if len(printed) > at_most:
            self.page.output(f"(and {len(printed) - at_most} more lines)")
        if printed:
            self.page.gap()
        if code != expected:
            raise CommandFailed(f"`{command}` ended with exit code {code} instead of {expected}")
        return "\n".join(printed)

    def _as_they_come(self, stream: Iterable[str]) -> Iterator[str]:
        """The lines of a stream; the seconds are shown as long as none comes."""
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def read() -> None:
            for line in stream:
                lines.put(line.rstrip())
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        clock = self.page.clock("working")
        while True:
            try:
                line = lines.get(timeout=0.5)
            except queue.Empty:
                clock.tick()
                continue
            self.page.clear()
            if line is None:
                return
            yield line
            clock = self.page.clock("working")

    def _environment(self) -> dict[str, str]:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(REPOSITORY),
            "SUPERBRAIN_ENDPOINT": self.endpoint,
            "SUPERBRAIN_CONTROL": self.control.endpoint,
        }
        if self.page.is_terminal:
            environment["COLUMNS"] = str(self.page.columns - INDENT)
        return environment

    # --- the daemon ---------------------------------------------------------------------------

    def start_daemon(self, command: str) -> None:
        """Show the command line, start the daemon, and wait until it answers."""
        self.page.typed(f"{command} 2> daemon.log &")
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                shlex.split(command),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops it in order
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - no thread runs yet
            )
        self.wait_for(self._answers, "the daemon to answer")

    def stop_daemon(self) -> None:
        """End the daemon, in order if it can."""
        if self._daemon is None:
            return
        self._daemon.terminate()
        try:
            self._daemon.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        self._daemon = None

    def drop(self, bundle: str) -> float:
        """Copy a bundle into the inbox; the time of the monotonic clock at which it was there."""
        self.page.typed(f"cp {bundle} host/inbox/")
        shutil.copy(self.folder / bundle, self.host / "inbox")
        return time.monotonic()

    def health(self) -> Health:
        """Give the daemon's health report."""
        return self.control.ask(GetHealth(), HealthReply).health

    def steps_of(self, model: str, version: str) -> list[Transition]:
        """Give the steps of a version's newest deployment, oldest first."""
        steps = self.control.ask(GetHistory(model, 1000), HistoryReply).transitions
        newest = max((step.deployment_id for step in steps if step.version == version), default=0)
        return [step for step in reversed(steps) if step.deployment_id == newest]

    def proof_of(self, model: str, version: str) -> Proof:
        """Give the newest proof of a version."""
        return self.control.ask(GetReport(model, version), ReportReply).proofs[-1].proof

    def last_log_lines(self) -> list[str]:
        """Give the end of the daemon's log, each line as long as the page is wide."""
        if not self.log.exists():
            return []
        width = self.page.columns - INDENT if self.page.is_terminal else LOG_WIDTH
        return [line[:width] for line in self.log.read_text().splitlines()[-LOG_LINES:]]

    def wait_for(self, look: Callable[[], T], what: str) -> T:
        """Look until there is something; what there is.

        Raises:
            ClaimBroken: there never was.
        """
        clock = self.page.clock("waiting")
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self._daemon is not None and self._daemon.poll() is not None:
                raise ClaimBroken(f"the daemon has ended (exit code {self._daemon.returncode})")
            if found := look():
                self.page.clear()
                return found
            clock.tick()
            time.sleep(LOOK_AGAIN_S)
        raise ClaimBroken(f"waited {PATIENCE_S:g} s in vain for {what}")

    def _answers(self) -> bool:
        try:
            self.health()
        except ControlError:
            return False
        return True


def _temporary_folder() -> Path:
    name = Path(tempfile.mkdtemp(prefix="superbrain-demo-"))
    if len(str(name)) <= LONGEST_FOLDER:
        return name
    name.rmdir()
    return Path(tempfile.mkdtemp(prefix="superbrain-demo-", dir="/tmp"))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
