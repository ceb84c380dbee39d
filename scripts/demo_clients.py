"""Programs that ask all the time, each in a process of its own, and what they saw.

    with Crowd(pictures, clients=3) as crowd:
        ...
    crowd.seen.asked, crowd.seen.failures, …

`python -m scripts.demo_clients PICTURE …` is one such program: it asks until its standard input
ends and then prints what it saw. The pictures' names say how far each is turned (`turned-90.jpg`),
so that every answer can be checked.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Self

import msgspec
import numpy as np

from superbrain.client import Client
from superbrain.wire.errors import SuperbrainError

MODEL = "orientation"
NEW_OUTPUT = "probabilities"
TIMEOUT_S = 10.0
PATIENCE_S = 30.0


class Answer(msgspec.Struct, frozen=True):
    """One answer; times are of the host's monotonic clock, in seconds."""

    asked_at: float
    answered_at: float
    version: str
    right: bool
    has_new_output: bool

    @property
    def took_ms(self) -> float:
        """From question to answer."""
        return (self.answered_at - self.asked_at) * 1000


class Seen(msgspec.Struct):
    """What one client, or all of them together, saw."""

    asked: int = 0
    answers: list[Answer] = []
    failures: list[str] = []

    def of(self, version: str) -> list[Answer]:
        """Give the answers of one version."""
        return [answer for answer in self.answers if answer.version == version]

    def between(self, begin: float, end: float) -> list[Answer]:
        """Give the answers that came between two times."""
        return [answer for answer in self.answers if begin <= answer.answered_at < end]

    def late(self, old: str, new: str) -> list[Answer]:
        """Give answers of `old` to questions asked after somebody had an answer of `new`."""
        first_new = min((answer.answered_at for answer in self.of(new)), default=float("inf"))
        return [answer for answer in self.of(old) if answer.asked_at > first_new]

    def longest_gap_ms(self, begin: float, end: float) -> float:
        """Give the longest time within these two in which nobody got an answer."""
        times = sorted([begin, *(a.answered_at for a in self.between(begin, end)), end])
        return max(later - earlier for earlier, later in itertools.pairwise(times)) * 1000


def quantile_ms(answers: Sequence[Answer], quantile: float) -> float:
    """Give a quantile of how long the answers took."""
    return float(np.quantile([answer.took_ms for answer in answers], quantile))


class Crowd:
    """`clients` programs that ask as long as the block lasts; then `seen` holds what they saw."""

    def __init__(self, pictures: Sequence[Path], clients: int, environment: dict[str, str]) -> None:
        self.seen = Seen()
        command = [sys.executable, "-m", "scripts.demo_clients", *map(str, pictures)]
        self._programs = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends their input
            )
            for _ in range(clients)
        ]

    def __enter__(self) -> Self:
        for _, stdout, _ in self._open():
            stdout.readline()  # it has its first answer
        return self

    def __exit__(self, *_error: object) -> None:
        for stdin, _, _ in self._open():
            stdin.close()
        for _, stdout, program in self._open():
            self._add(stdout.read())
            stdout.close()
            program.wait(PATIENCE_S)

    def _open(self) -> Iterator[tuple[IO[bytes], IO[bytes], subprocess.Popen[bytes]]]:
        for program in self._programs:
            if program.stdin and program.stdout:
                yield program.stdin, program.stdout, program

    def _add(self, report: bytes) -> None:
        one = msgspec.json.decode(report or b'{"failures": ["a client ended early"]}', type=Seen)
        self.seen.asked += one.asked
        self.seen.answers += one.answers
        self.seen.failures += one.failures


def ask_until(ended: Callable[[], bool], pictures: Sequence[Path]) -> Seen:
    """Ask about the pictures in turn, one after the other."""
    seen = Seen()
    contents = [(path.read_bytes(), path.stem.removeprefix("turned-")) for path in pictures]
    with Client(timeout=TIMEOUT_S) as client:
        for picture, degrees in itertools.cycle(contents):
            if ended():
                break
            seen.asked += 1
            began = time.monotonic()
            try:
                result = client.infer(MODEL, {"image": picture})
            except SuperbrainError as error:
                seen.failures.append(str(error))
            else:
                now, right = time.monotonic(), result.text("label") == degrees
                answer = Answer(began, now, result.model_version, right, NEW_OUTPUT in result)
                seen.answers.append(answer)
            if seen.asked == 1:
                print("asking", flush=True)
    return seen


def main() -> int:
    """Ask until standard input ends."""
    end = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        end.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    seen = ask_until(end.is_set, [Path(name) for name in sys.argv[1:]])
    sys.stdout.buffer.write(msgspec.json.encode(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
