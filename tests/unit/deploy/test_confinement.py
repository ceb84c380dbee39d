"""How often a worker is looked at, by count, and that whatever it may have taken is looked at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from superbrain.deploy import confinement
from superbrain.deploy.child import ChildError
from superbrain.deploy.confinement import (
    LOOK_ANYWAY_EVERY,
    SCRATCH_ANYWAY_EVERY,
    SCRATCH_EVERY,
    Confined,
    watch,
)
from superbrain.deploy.rounds import Rounds
from superbrain.domain.sandbox import SandboxPolicy, Usage

PID = 4711
LIMIT_MIB = 100
OVER = Usage(memory_bytes=(LIMIT_MIB + 1) << 20)


class FakeChild:
    """Stands in for `Child`: it ends when it is condemned."""

    def __init__(self) -> None:
        self.name, self.pid = "worker 1", PID
        self.concerns: dict[str, int] = {}
        self.exited = asyncio.Event()
        self.verdict: ChildError | None = None

    def condemn(self, verdict: ChildError) -> None:
        self.verdict = verdict
        self.exited.set()


class Scene:
    """One confined worker; what it uses, whether it runs, and what was read of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = False
        self.uses = self.holds = Usage()
        self.usage_read = self.scratch_read = 0
        monkeypatch.setattr(confinement, "usage", self._usage)
        monkeypatch.setattr(confinement, "scratch_usage", self._scratch_usage)
        self.child = FakeChild()
        policy = SandboxPolicy(memory_mib=LIMIT_MIB)
        self.confined = Confined(self.child, policy, folder / "scratch", lambda: self.runs)  # type: ignore[arg-type]

    def _usage(self, pid: int) -> Usage:
        assert pid == PID
        self.usage_read += 1
        return self.uses

    def _scratch_usage(self, _folder: Path, pid: int) -> Usage:
        assert pid == PID
        self.scratch_read += 1
        return self.holds

    async def look(self, times: int) -> tuple[int, int]:
        """Look so often; how often its usage and its scratch folder were read meanwhile."""
        before = (self.usage_read, self.scratch_read)
        for _ in range(times):
            self.confined.look()
            await self.settle()
        return self.usage_read - before[0], self.scratch_read - before[1]

    async def settle(self) -> None:
        """Let the loop do what a look has asked of it."""
        await asyncio.sleep(0)
        while (measuring := self.confined._measuring) is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await measuring


Make = Callable[[], Scene]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    return partial(Scene, tmp_path, monkeypatch)


async def at_rest(scene: Scene) -> Scene:
    """Let it have been measured once, and rest from then on."""
    scene.confined.alone = True
    await scene.look(SCRATCH_EVERY)
    return scene


def test_of_one_that_rests_next_to_nothing_is_read(make: Make) -> None:
    async def story() -> tuple[int, int]:
        return await (await at_rest(make())).look(SCRATCH_ANYWAY_EVERY)

    assert asyncio.run(story()) == (SCRATCH_ANYWAY_EVERY // LOOK_ANYWAY_EVERY, 1)


def test_one_that_runs_is_read_at_every_look(make: Make) -> None:
    async def story() -> tuple[int, int]:
        scene = await at_rest(make())
        scene.runs = True
        return await scene.look(2 * SCRATCH_EVERY)

    assert asyncio.run(story()) == (2 * SCRATCH_EVERY, 2)


def test_one_that_may_have_processes_of_its_own_is_read_at_every_look(make: Make) -> None:
    async def story() -> tuple[int, int]:
        scene = await at_rest(make())
        scene.confined.alone = False
        return await scene.look(2 * SCRATCH_EVERY)

    assert asyncio.run(story()) == (2 * SCRATCH_EVERY, 2)


def test_one_look_that_finds_it_running_is_followed_by_one_at_its_scratch_folder(
    make: Make,
) -> None:
    async def story() -> list[tuple[int, int]]:
        scene = await at_rest(make())
        scene.runs = True
        found = [await scene.look(1)]
        scene.runs = False
        return [*found, await scene.look(SCRATCH_EVERY - 1), await scene.look(SCRATCH_EVERY)]

    (first, rest, later) = asyncio.run(story())
    assert first == (1, 0)
    assert rest[1] == 1
    assert later[1] == 0


def test_beyond_its_memory_it_is_ended_by_the_very_look_that_finds_it(make: Make) -> None:
    async def story() -> ChildError | None:
        scene = await at_rest(make())
        scene.runs, scene.uses = True, OVER
        await scene.look(1)
        return scene.child.verdict

    verdict = asyncio.run(story())
    assert verdict is not None
    assert verdict.code == "MEMORY_LIMIT"


def test_what_a_resting_one_holds_too_much_of_is_found_all_the_same(make: Make) -> None:
    async def story(scratch: Usage, memory: Usage, looks: int) -> str:
        scene = await at_rest(make())
        scene.holds, scene.uses = scratch, memory
        await scene.look(looks)
        return scene.child.verdict.code if scene.child.verdict else ""

    over = Usage(scratch_bytes=1 << 40)
    assert asyncio.run(story(Usage(), OVER, LOOK_ANYWAY_EVERY)) == "MEMORY_LIMIT"
    assert asyncio.run(story(over, Usage(), SCRATCH_ANYWAY_EVERY)) == "SCRATCH_LIMIT"


def test_one_that_has_been_let_go_is_not_judged(make: Make) -> None:
    async def story() -> ChildError | None:
        scene = await at_rest(make())
        scene.runs, scene.uses, scene.holds = True, OVER, Usage(scratch_bytes=1 << 40)
        scene.confined.let_go()
        await scene.look(SCRATCH_EVERY)
        return scene.child.verdict

    assert asyncio.run(story()) is None


def test_one_that_nobody_can_look_at_is_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_thread: object) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    async def story() -> ChildError | None:
        scene = make()
        await watch(scene.confined, Rounds())
        return scene.child.verdict

    monkeypatch.setattr("threading.Thread.start", refused)
    monkeypatch.setattr("asyncio.to_thread", _at_once)
    verdict = asyncio.run(story())
    assert verdict is not None
    assert "can't start new thread" in verdict.message


async def _at_once(what: object, *arguments: object) -> object:
    return what(*arguments)  # type: ignore[operator]
