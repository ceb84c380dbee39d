"""Filling a worker's place: whatever keeps a process from starting, it is tried again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from superbrain.deploy import keeper as module
from superbrain.deploy.child import ChildError
from superbrain.deploy.crew import Crew, Worker
from superbrain.deploy.keeper import Keeper


class Place:
    """A model that notes what it is told."""

    name = "ocr"

    def __init__(self, crew: Crew) -> None:
        self.current = crew
        self.moving = asyncio.Lock()
        self.epitaphs: list[str] = []
        self.shown = 0

    async def show_lanes(self) -> None:
        self.shown += 1

    def died(self, epitaph: str) -> None:
        self.epitaphs.append(epitaph)


def a_worker(number: int) -> Worker:
    child = SimpleNamespace(
        exited=asyncio.Event(), verdict=None, epitaph=lambda: f"worker {number} exited"
    )
    return cast("Worker", SimpleNamespace(worker_id=number, child=child))


def test_a_start_that_fails_in_a_way_nobody_foresaw_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "restart_delay_s", lambda *_: 0.0)

    async def scene() -> Place:
        old, fresh = a_worker(1), a_worker(2)
        place = Place(cast("Crew", SimpleNamespace(workers=[old])))
        starts: list[Any] = [OSError(28, "No space left"), ChildError("DIED", "it died"), fresh]

        async def proven_worker(_crew: Crew) -> Worker:
            found = starts.pop(0)
            if isinstance(found, Exception):
                raise found
            return cast("Worker", found)

        monkeypatch.setattr(module, "proven_worker", proven_worker)
        keeper = Keeper(cast("Any", place))
        keeper.keep(old)
        old.child.exited.set()
        await keeper._tasks[1]
        assert place.current.workers == [fresh]
        assert (keeper.restarts, place.shown, sorted(keeper._tasks)) == (3, 1, [2])
        keeper.forget()
        return place

    place = asyncio.run(scene())
    assert place.epitaphs[0] == "worker 1 exited"
    assert "No space left" in place.epitaphs[1]
    assert place.epitaphs[2] == "it died"
    assert "No space left" in caplog.text
