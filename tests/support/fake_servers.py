"""Servers for tests of the client: in this process, and in one of its own to be killed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from superbrain.client import Client, Result
from superbrain.client.fake import FakeModel, FakeServer

Inputs = dict[str, Any]


def echo(request: Inputs) -> Inputs:
    return {"y": request["x"]}


def nap(request: Inputs) -> Inputs:
    time.sleep(float(request["seconds"]))
    return {}


def raising(error: Exception) -> Callable[[Inputs], Inputs]:
    def fail(_: Inputs) -> Inputs:
        raise error

    return fail


MODELS = {
    "echo": FakeModel(echo),
    "typed": FakeModel(echo, {"x": "FP32[-1]"}, {"y": "FP32[-1]"}, version="2.0.0"),
    "nap": FakeModel(nap, {"seconds": "FP64[]"}),
    "label": FakeModel(lambda request: {"label": request["image"][::-1]}, {"image": "BYTES[]"}),
    "proving": FakeModel(echo, ready=False, reason="golden cases are being proven"),
}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(MODELS) as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> Iterator[Client]:
    with Client(server.endpoint, timeout=20) as client:
        yield client


def number(value: int) -> Inputs:
    return {"x": np.array([value])}


def number_of(result: Result) -> int:
    return int(result["y"][0])


SLOW_ECHO = """
import signal, sys, time
from superbrain.client.fake import FakeServer
def echo(request):
    time.sleep(0.001)
    return {"y": request["x"]}
with FakeServer({"echo": echo}, sys.argv[1]):
    print("ready", flush=True)
    signal.pause()
"""


class ServerProcess:
    """An echo server in a process of its own, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/infer.sock"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", SLOW_ECHO, self.endpoint]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
