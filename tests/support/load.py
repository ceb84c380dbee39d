"""Clients that ask all the time, and check every answer.

A model `adder` of version N.0.0 adds N, so an answer labelled with one version and computed by
another is found out at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np

from superbrain.client import Client
from superbrain.wire.errors import SuperbrainError

GAP_S = 0.05
BURST = 20
PAUSE_S = 0.04
BEGINS_WITHIN_S = 20.0


class Span(NamedTuple):
    """From when to when, in seconds of the monotonic clock, and what came of it."""

    begin: float
    end: float
    error: str = ""

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.begin


class Load:
    """`clients` threads, each with a connection of its own, asking until the block ends.

    Each asks `BURST` times without a pause, then waits `pause_s`: one or another is nearly always
    in the midst of asking, and the processors are left to what is tested.

    Attributes:
        answered: how many answers came.
        failed: every error that came instead; `failures` tells when it was asked and answered.
        gaps: when one of them got no answer for more than `GAP_S`.
        mixed: answers whose value is not that of the version they are labelled with.
        backwards: answers of an older version than the same client had seen before.
        versions: all versions seen; `newest` is the highest major number among them.
    """

    def __init__(
        self, make_client: Callable[[], Client], clients: int = 4, *, pause_s: float = PAUSE_S
    ) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self.failures: list[Span] = []
        self.gaps: list[Span] = []
        self.mixed: list[str] = []
        self.backwards: list[str] = []
        self.versions: set[str] = set()
        self.newest = 0
        self._make_client = make_client
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._begun = [threading.Event() for _ in range(clients)]
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        for begun in self._begun:  # nobody is still on the way to the first connection
            begun.wait(BEGINS_WITHIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def assert_flawless(self) -> None:
        """Nothing failed, nothing was mixed, nothing went backwards, and there was traffic."""
        faults = [*self.failed, *self.mixed, *self.backwards]
        assert not faults, f"{len(faults)} faults, first: {faults[:3]}"
        assert self.answered > 0

    def _ask(self, number: int) -> None:
        newest, count, last = 0, 0, 0.0
        with self._make_client() as client:
            while not self._stop.wait(self._pause_s if count % BURST == 0 else 0):
                count += 1
                x = np.full((1, 4), number * 1000 + count % 1000, np.float32)
                asked = time.monotonic()
                try:
                    result = client.infer("adder", {"x": x})
                except SuperbrainError as error:
                    self._begun[number].set()
                    with self._lock:
                        self.failed.append(str(error))
                        self.failures.append(Span(asked, time.monotonic(), str(error)))
                    continue
                self._begun[number].set()
                added = int(result["y"][0, 0] - x[0, 0])
                version = int(result.model_version.split(".")[0])
                with self._lock:
                    self.answered += 1
                    if (now := time.monotonic()) - last > GAP_S and count > 1:
                        self.gaps.append(Span(last, now))
                    self.versions.add(result.model_version)
                    self.newest = max(self.newest, version)
                    if added != version:
                        self.mixed.append(f"{result.model_version} added {added}")
                    if version < newest:
                        self.backwards.append(f"{version} after {newest}")
                newest, last = max(newest, version), now
