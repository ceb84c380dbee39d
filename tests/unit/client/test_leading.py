"""Who reads for everybody: a thread that was interrupted does not, and who does ends shortcuts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from superbrain.client import Client
from superbrain.client.connection import Connection
from superbrain.transport import compiled
from tests.support.lane_ends import WorkerEnd, X
from tests.support.lone_client import PATIENCE_S, Gateway, bring_on_lane, upcoming
from tests.support.shortcuts import Shortcuts
from tests.support.twins import MISSING

pytestmark = pytest.mark.integration


@contextmanager
def connected(gateway: Gateway, worker: WorkerEnd) -> Iterator[Client]:
    client = Client(gateway.endpoint, timeout=PATIENCE_S)
    bring_on_lane(client._connection(), gateway, worker)
    try:
        yield client
    finally:
        client.close()


def infer(client: Client, worker: WorkerEnd, value: float) -> None:
    """Ask what the worker answers before."""
    worker.reply(upcoming(client._connection()), value)
    assert client.infer("m", X)["y"].tolist() == [value]


@pytest.mark.parametrize("by", ["ask", "wait"])
def test_who_was_interrupted_before_reading_for_everybody_does_so_the_next_time(
    gateway: Gateway, worker: WorkerEnd, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    def interrupted(*_: Any) -> None:  # noqa: ANN401
        raise KeyboardInterrupt

    with connected(gateway, worker) as client:
        pending = client.submit("m", X) if by == "wait" else None
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "_lead", interrupted)
            with pytest.raises(KeyboardInterrupt):
                _ = client.infer("m", X) if pending is None else pending.result()
        assert client._connection()._leading is None
        infer(client, worker, 3)
        assert client._connection()._leading is None
        if pending is not None:
            worker.reply(int(pending.id.rpartition("-")[2]), 4)
            assert pending.result()["y"].tolist() == [4]


def test_who_waits_for_something_else_ends_shortcuts(
    gateway: Gateway, worker: WorkerEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled.loop() is None:
        pytest.skip(MISSING)
    Shortcuts(monkeypatch, 10_000_000_000)  # all that happens in a test is brief
    with connected(gateway, worker) as client:
        connection = client._connection()
        pending = client.submit("other", X)  # the gateway has it, and does not answer
        for value in range(6):
            infer(client, worker, value)
        (shortcut,) = connection.shortcuts.values()
        with pytest.raises(TimeoutError):
            pending.result(timeout=0.001)
        assert not connection.shortcuts
        assert not shortcut.good
