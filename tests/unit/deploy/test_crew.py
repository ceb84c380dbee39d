"""Crews: beside whom nobody loads or ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from superbrain.deploy.crew import LONG_MS, Crew, Worker, _load_aside
from superbrain.domain import ctl
from superbrain.domain.manifest import Manifest
from superbrain.host import processors
from tests.support.graphs import ADD
from tests.support.models import border, write_model

OTHER = 1


class Child:
    """A child that does as it is told; it is this process, of which nothing changes."""

    name = "worker 7"
    alive = True

    def __init__(self, heard: list[object]) -> None:
        self.pid = os.getpid()
        self.concerns: dict[str, int] = {}
        self._heard = heard

    async def order(self, message: ctl.Message, *_: object) -> ctl.Done:
        self._heard.append(message)
        return ctl.Done()

    async def end(self) -> None:
        self._heard.append("ended")


async def nothing() -> None:
    """Stand in for the watch, which has nothing to tidy up."""


def in_a_loop(scene: Callable[[Worker, list[object]], Any]) -> list[object]:
    """Play a scene with a worker; give what its child heard."""
    heard: list[object] = []

    async def play() -> None:
        watching = asyncio.create_task(nothing())
        worker = Worker(cast("Any", Child(heard)), 7, "lane", watching, {OTHER})
        await scene(worker, heard)

    asyncio.run(play())
    return heard


@pytest.mark.parametrize("milliseconds", [0.01, LONG_MS, 3000.0])
def test_who_executes_for_long_is_left_undisturbed_until_its_end(
    monkeypatch: pytest.MonkeyPatch, milliseconds: float
) -> None:
    mine = os.getpid()

    async def scene(worker: Worker, heard: list[object]) -> None:
        def step_aside(pid: int, others: set[int]) -> None:
            heard.append((pid, set(others)))

        monkeypatch.setattr(processors, "step_aside", step_aside)
        worker.proven_ms = {"short": 0.001, "long": milliseconds}
        assert worker._undisturbed == {OTHER}
        await worker.serve()
        assert worker._undisturbed == ({OTHER, mine} if milliseconds >= LONG_MS else {OTHER})
        await worker.end()

    assert in_a_loop(scene) == [ctl.Serve(), (mine, {OTHER}), "ended"]


def bundle(folder: Path, files: dict[str, str]) -> Manifest:
    """A bundle of two graphs, one of which may use three threads."""
    inputs, outputs = [border("a", "FP32", -1, 3)], [border("sum", "FP32", -1, 3)]
    graphs = {"one": ADD, "two": ADD}
    manifest = write_model(folder, graphs=graphs, inputs=inputs, outputs=outputs, files=files)
    manifest.graphs["two"] = msgspec.structs.replace(manifest.graphs["two"], threads=3)
    return manifest


@pytest.mark.parametrize(
    ("files", "aside"),
    [({}, [(7, {OTHER}, 3)]), ({"code/pipeline.py": "class Pipeline: pass"}, [])],
    ids=["graphs alone", "code comes along"],
)
def test_graphs_alone_load_where_nobody_executes_with_room_for_their_threads(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: dict[str, str],
    aside: list[tuple[int, set[int], int]],
) -> None:
    asked: list[tuple[int, set[int], int]] = []
    monkeypatch.setattr(processors, "step_aside", lambda *arguments: asked.append(arguments))
    workplace = SimpleNamespace(undisturbed={OTHER})
    bringup = SimpleNamespace(manifest=bundle(tmp_path, files), workplace=workplace)
    _load_aside(cast("Any", SimpleNamespace(pid=7)), cast("Any", bringup))
    assert asked == aside


def crew(*pids: int) -> Crew:
    workers = [SimpleNamespace(child=SimpleNamespace(pid=pid)) for pid in pids]
    return Crew(cast("Any", None), cast("Any", workers))


@pytest.mark.parametrize(
    ("old", "new", "pairs"),
    [((1,), (2,), ["1>2"]), ((1, 2), (3, 4), ["1>3", "2>4"]), ((1, 2), (3,), ["1>3"])],
)
def test_each_worker_takes_the_place_of_another(
    monkeypatch: pytest.MonkeyPatch, old: tuple[int, ...], new: tuple[int, ...], pairs: list[str]
) -> None:
    placed: list[str] = []

    @contextlib.contextmanager
    def in_place_of(predecessor: int, pid: int) -> Iterator[None]:
        placed.append(f"{predecessor}>{pid}")
        yield
        placed.remove(f"{predecessor}>{pid}")

    monkeypatch.setattr(processors, "in_place_of", in_place_of)
    with crew(*new).in_place_of(crew(*old)):
        assert placed == pairs
    assert placed == []
