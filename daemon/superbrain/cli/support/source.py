"""Where a support bundle's parts come from: the daemon, files and commands, each within bounds."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Final, TypeVar

from superbrain.app.config import Config
from superbrain.cli.control import ControlClient
from superbrain.cli.support.redact import Redactor
from superbrain.domain.operations import AnyOperation, Reply
from superbrain.wire.errors import SuperbrainError

MAX_PART_BYTES: Final = 8 << 20
MAX_BYTES: Final = 64 << 20
COMMAND_S: Final = 20.0
UNIT: Final = "superbraind"

_ReplyT = TypeVar("_ReplyT", bound=Reply)


class CannotHave(SuperbrainError):
    """A part cannot be had, and why."""


class Source:
    """Gives answers, files and outputs until the time is over.

    Args:
        config: the configuration that holds.
        config_error: why it is only the default, empty when it is not.
        client: asks the daemon.
        redactor: what every text goes through.
        log: the daemon's log where it does not go to the journal.
        with_output: take along what models and their code have printed.
        time_limit_s: for everything together.
        places: `--root` and `--config`, as they were given.
    """

    def __init__(
        self,
        config: Config,
        config_error: str,
        client: ControlClient,
        redactor: Redactor,
        *,
        log: Path | None,
        with_output: bool,
        time_limit_s: float,
        places: tuple[str, ...] = (),
    ) -> None:
        self.config = config
        self.config_error = config_error
        self.redactor = redactor
        self.log = log
        self.with_output = with_output
        self.places = places
        self._client = client
        self._end = time.monotonic() + time_limit_s

    def left_s(self) -> float:
        """The time that is left.

        Raises:
            CannotHave: none is.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise CannotHave("no time was left for it", mend="--time-limit gives more")
        return left

    def ask(self, question: AnyOperation, expected: type[_ReplyT]) -> _ReplyT:
        """Ask the daemon.

        Raises:
            CannotHave: there is no time.
            SuperbrainError: it does not answer, or refuses.
        """
        limit = min(self._client.timeout_s, self.left_s())
        return ControlClient(self._client.endpoint, limit).ask(question, expected)

    def output(self, *command: str) -> str:
        """What a command prints, up to `MAX_PART_BYTES` from its end; its failure is said.

        Raises:
            CannotHave: it is not there, fails without a word, or takes too long.
        """
        quiet = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "PAGER": "cat"}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=quiet,
                timeout=min(COMMAND_S, self.left_s()),
                check=False,
            )
        except FileNotFoundError as error:
            raise CannotHave(f"there is no {command[0]} on this host") from error
        except OSError as error:
            raise CannotHave(f"{command[0]} does not run: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise CannotHave(f"{command[0]} took longer than {error.timeout:.0f} s") from error
        if done.returncode and not done.stdout:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise CannotHave(f"{command[0]} failed: {said[0] if said else done.returncode}")
        return cut(done.stdout)

    def tail(self, path: Path, limit: int = MAX_PART_BYTES) -> str:
        """The end of a regular file, from a line's beginning on.

        Raises:
            CannotHave: it cannot be read.
        """
        try:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - limit))
                data = file.read(limit)
        except OSError as error:
            raise CannotHave(f"{path} cannot be read: {error.strerror}") from error
        return cut(data if size <= limit else data[data.find(b"\n") + 1 :], limit)


def cut(data: bytes, limit: int = MAX_PART_BYTES) -> str:
    """The end of a text that is too long, from a line's beginning on."""
    if len(data) > limit:
        data = data[-limit:]
        data = data[data.find(b"\n") + 1 :]
    return data.decode("utf-8", "replace")
