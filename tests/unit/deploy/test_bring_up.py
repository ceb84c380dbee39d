"""Bringing back what served: engines of the bundle that are no good any more are set aside."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from superbrain.deploy.bring_up import BringUp
from superbrain.deploy.child import ChildError
from superbrain.deploy.crew import Bringup, Crew, Workplace
from superbrain.deploy.fork_server import ForkServer
from superbrain.deploy.journal import Journal
from superbrain.deploy.shelf import CarriedUnfit
from superbrain.domain.deployment import Deployment, Reason, RungOutcome, State
from superbrain.domain.engine import EngineFile, EngineKey
from superbrain.domain.manifest import CarriedEngine, Manifest
from superbrain.domain.proof import OutputFigures, Proof
from superbrain.domain.sandbox import SandboxPolicy
from tests.support.graphs import ADD
from tests.support.models import border, write_model

RUNG = "tensorrt:fp16"
KEY = EngineKey("digest", "tensorrt", "10.16", "NVIDIA L4", "8.9", "fp16", [], [], 1024)
CARRIED = CarriedEngine("add", "engines/one/engine", KEY)


@contextlib.asynccontextmanager
async def _at_once(_bringup: Bringup) -> AsyncIterator[None]:
    yield


class Scene:
    """A store, a workshop and workers that are none: `fails` with what, for engines from where."""

    def __init__(self, folder: Path) -> None:
        manifest = write_model(
            folder,
            graphs={"add": ADD},
            inputs=[border("a", "FP32", -1, 3)],
            outputs=[border("sum", "FP32", -1, 3)],
        )
        self.manifest_read = msgspec.structs.replace(manifest, ladder=[RUNG], engines=[CARRIED])
        self.workplace = Workplace(folder, folder, SandboxPolicy(), ForkServer())
        self.journal = Journal(folder / "journal.sqlite")
        first = Deployment(0, "add", "1.0.0", 1, "ab", (RUNG,), state=State.LIVE)
        self.deployment = self.journal.create(first, dt.datetime.now(dt.UTC))
        self.bring_up = BringUp(self.journal, self, self)  # type: ignore[arg-type]
        self.fails: ChildError | None = None
        self.drifts = False
        self.loaded: list[str] = []
        self.doubted: list[str] = []
        self.refused_engines: list[str] = []
        self.ended = 0

    # --- as a store, a workshop, and a crew ---------------------------------------------------

    def manifest(self, _digest: str) -> Manifest:
        return self.manifest_read

    def path(self, digest: str) -> Path:
        return Path("store") / digest

    async def engines(self, bringup: Bringup, _show: object) -> tuple[EngineFile, ...]:
        where = "bundle" if bringup.carried else "cache"
        return (EngineFile("add", where, "00"),)

    def doubt(self, rung: str) -> None:
        self.doubted.append(rung)

    async def refused(self, bringup: Bringup) -> None:
        self.refused_engines += [one.path for one in bringup.engines]

    async def load(self, bringup: Bringup) -> Any:  # noqa: ANN401 - stands in for a crew
        self.loaded.append(bringup.engines[0].path)
        if bringup.carried and self.fails is not None:
            raise self.fails
        return _Crew(self, bringup)

    # --- what is asked ------------------------------------------------------------------------

    def again(self, deployment: Deployment | None = None) -> Any:  # noqa: ANN401
        async def scene() -> Any:  # noqa: ANN401
            wanted = deployment or self.deployment
            return await self.bring_up.again(wanted, lambda _detail, _percent: None, _at_once)

        return asyncio.run(scene())

    def stored(self) -> Deployment:
        found = self.journal.get(self.deployment.id)
        assert found is not None
        return found


class _Crew:
    def __init__(self, scene: Scene, bringup: Bringup) -> None:
        self.scene, self.bringup = scene, bringup

    async def prove(self, *, timed: bool) -> list[tuple[int, Proof]]:
        assert not timed
        drifts = self.scene.drifts and bool(self.bringup.carried)
        why = "it drifts" if drifts else ""
        figure = OutputFigures("one", "y", "", passed=not drifts, tolerance="exact", reason=why)
        return [(1, Proof(RUNG, [figure], []))]

    async def end(self) -> None:
        self.scene.ended += 1


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr(Crew, "load", made.load)
    yield made
    made.journal.close()


def test_what_the_bundle_brings_is_proven_again(scene: Scene) -> None:
    scene.again()
    assert scene.loaded == ["bundle"]
    assert scene.stored() == scene.deployment


@pytest.mark.parametrize("code", ["EngineRefused", "TIMED_OUT"])
def test_what_is_no_good_any_more_is_set_aside_for_good(scene: Scene, code: str) -> None:
    scene.fails = ChildError(code, "not any more", mend="none")
    scene.again()
    assert scene.loaded == ["bundle", "cache"]
    assert scene.stored().carried == (RungOutcome(RUNG, Reason(code, "not any more", "none")),)
    assert scene.stored().state is State.LIVE
    scene.again(scene.stored())
    assert scene.loaded == ["bundle", "cache", "cache"]
    assert scene.doubted == [RUNG]


def test_what_drifts_is_set_aside_and_its_processes_end(scene: Scene) -> None:
    scene.drifts = True
    scene.again()
    assert scene.loaded == ["bundle", "cache"]
    assert scene.ended == 1
    (outcome,) = scene.stored().carried
    assert outcome.reason is not None
    assert outcome.reason.code == "GOLDEN_MISMATCH"


@pytest.mark.parametrize("code", ["NoDevice", "RungUnavailable", "DIED"])
def test_what_is_not_the_engines_fault_is_passed_on(scene: Scene, code: str) -> None:
    scene.fails = ChildError(code, "not here")
    with pytest.raises(ChildError, match="not here") as caught:
        scene.again()
    assert caught.value.code == code
    assert scene.loaded == ["bundle"]
    assert scene.stored() == scene.deployment


def test_the_fault_of_the_bundles_code_stays_its_own(scene: Scene) -> None:
    scene.fails = ChildError("CODE_NO_PIPELINE", "no class", bundle_at_fault=True)
    with pytest.raises(ChildError) as caught:
        scene.again()
    assert not isinstance(caught.value, CarriedUnfit)
    assert caught.value.bundle_at_fault
