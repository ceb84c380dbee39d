"""Whatever a builder does wrong, in whatever phase: one reason, nothing left, and a clean next try.

The builders are real processes in their real sandbox, started, watched and ended by the real
workshop; their library is a stub that finds a GPU and builds at once (tests/support/engine_python).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import psutil
import pytest

from superbrain.bundle.engine_cache import EngineCache
from superbrain.bundle.store import Store
from superbrain.deploy import workshop as module
from superbrain.deploy.child import ChildError
from superbrain.deploy.crew import Bringup, Workplace
from superbrain.deploy.fork_server import ForkServer
from superbrain.deploy.shelf import CarriedUnfit
from superbrain.deploy.surveys import Surveys
from superbrain.deploy.workshop import Workshop
from superbrain.domain import operations as op
from superbrain.domain.ctl_build import MEASURED
from superbrain.domain.engine import BuilderPolicy, EngineFile, EngineHost, engine_key, timing_key
from superbrain.domain.manifest import CarriedEngine, FileEntry
from superbrain.domain.rung_facts import RungFacts
from superbrain.domain.sandbox import SandboxPolicy
from superbrain.engines.tensorrt import TensorRt
from tests.support.appliance import Appliance
from tests.support.bundles import sign_key, verified
from tests.support.engines import convolutions, make_sample_bundle
from tests.support.load import Load
from tests.support.other_python import other_python
from tests.support.processes import until
from tests.support.releases import go_live

pytestmark = pytest.mark.fault

RUNG = "tensorrt-rtx:fp32"
DAEMON = str(Path(__file__).parents[1] / "support" / "engine_daemon.py")
POLICY = BuilderPolicy(time_limit_s=60.0, memory_mib=256, priority="normal")
BUILDER = "superbrain.serve.builder_process"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Bringup:
    """A bundle in a store, to be brought up on a rung that needs an engine."""
    folder = tmp_path_factory.mktemp("bundle")
    author = sign_key(folder / "keys")
    built = make_sample_bundle(folder, author, convolutions(layers=1))
    bundle = verified(built, author)
    with built.path.open("rb") as file:
        path = Store(folder / "store", reserve_bytes=0).receive(file, bundle)
    place = Workplace(folder / "lanes", folder / "scratch", SandboxPolicy(), ForkServer())
    return Bringup(1, path, bundle.digest, bundle.manifest, RUNG, place)


class Site:
    """A workshop of one's own; `fault` is what its next builder does wrong."""

    def __init__(self, folder: Path, bringup: Bringup) -> None:
        self.scratch = folder / "scratch"
        self.engines = folder / "engines"
        self.fault = folder / "fault"
        self.shown: list[str] = []
        place = msgspec.structs.replace(bringup.workplace, scratch_path=self.scratch)
        self.bringup = msgspec.structs.replace(bringup, workplace=place)
        self.cache = EngineCache(self.engines, 1 << 30)

    def workshop(self, policy: BuilderPolicy = POLICY) -> Workshop:
        surveys = Surveys(self.engines)
        return Workshop(self.cache, policy, self.bringup.workplace, set, surveys)

    async def equip(self, workshop: Workshop) -> tuple[EngineFile, ...]:
        return await workshop.engines(self.bringup, lambda detail, _: self.shown.append(detail))

    def assert_tidy(self) -> None:
        assert not list(self.scratch.glob("*"))
        assert not list((self.engines / ".staging").iterdir())
        assert not [one for one in psutil.Process().children() if BUILDER in one.cmdline()]

    def built(self) -> list[Path]:
        return list(self.engines.glob("*/engine"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, stored: Bringup) -> Path:
    """A folder in which the engine has been built."""
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_LIBRARY", "stub")
        patch.setattr(sys, "executable", other_python(folder, "engine_python.py"))
        made = Site(folder, stored)
        asyncio.run(made.equip(made.workshop()))
    return folder


@pytest.fixture
def equipped(site: Site, full: Path) -> Site:
    """Where the engine has been built."""
    shutil.copytree(full / "engines", site.engines, dirs_exist_ok=True)
    return site


@pytest.fixture
def site(tmp_path: Path, stored: Bringup, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path, stored)
    monkeypatch.setenv("BUILDER_FAULT", str(made.fault))
    monkeypatch.setenv("BUILDER_LIBRARY", "stub")
    monkeypatch.setattr(sys, "executable", other_python(tmp_path, "engine_python.py"))
    yield made
    made.assert_tidy()


# --- every fault in every phase -------------------------------------------------------------------

ROWS = [
    ("die looking", "DIED", "was ended by SIGKILL"),
    ("die parsing", "DIED", "was ended by SIGKILL"),
    ("die building", "DIED", "was ended by SIGKILL"),
    ("die writing", "DIED", "was ended by SIGKILL"),
    ("crash building", "DIED", "was ended by SIGSEGV"),
    ("hang looking", "TIMED_OUT", "did not finish Survey within"),
    ("refuse building", "MemoryError", "no more of it"),
]


@pytest.mark.parametrize(("fault", "code", "says"), ROWS, ids=[row[0] for row in ROWS])
def test_it_costs_one_try_and_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch, fault: str, code: str, says: str
) -> None:
    workshop = site.workshop()
    site.fault.write_text(fault)
    with monkeypatch.context() as patch:
        if fault.startswith("hang"):
            patch.setattr(module, "SURVEY_TIMEOUT_S", 2.0)
        with pytest.raises(ChildError, match=says) as caught:
            asyncio.run(site.equip(workshop))
    assert caught.value.code == code
    assert not caught.value.bundle_at_fault
    assert not site.built()
    site.assert_tidy()
    site.fault.unlink()
    (engine,) = asyncio.run(site.equip(site.workshop()))
    assert Path(engine.path).read_bytes() == b"an engine of main.onnx"


def test_a_build_that_nobody_wants_any_more_is_ended(site: Site) -> None:
    async def scene() -> None:
        site.fault.write_text("hang building")
        building = asyncio.create_task(site.equip(site.workshop()))
        await asyncio.to_thread(until, lambda: "tactics" in "".join(site.shown), "a build")
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building

    asyncio.run(scene())
    assert not site.built()


def test_a_build_that_others_left_no_processor_is_told_what_to_do_about_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = itertools.count(step=4.0)
    monkeypatch.setattr(module, "waited_s", lambda _pid: next(waited))
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    site.fault.write_text("hang building")
    with pytest.raises(ChildError, match="did not finish Build within 2 s") as caught:
        asyncio.run(site.equip(site.workshop(msgspec.structs.replace(POLICY, time_limit_s=2.0))))
    assert 'set builder.priority = "normal"' in caught.value.mend
    assert "of them waiting for a processor" in site.shown[-1]


def test_what_was_measured_is_not_written_through_what_a_builder_has_planted(site: Site) -> None:
    journal = site.scratch.parent / "journal"
    journal.write_text("mine")
    site.scratch.mkdir()
    host = EngineHost("tensorrt", "10.0.0")
    (site.scratch / "made").write_bytes(b"measured")
    site.cache.put(timing_key(host), site.scratch / "made", host, 0.0)
    child = SimpleNamespace(pid=os.getpid())
    builder = SimpleNamespace(child=child, scratch=site.scratch)
    visit = module._Visit(site.cache, POLICY, site.bringup, cast("Any", builder), lambda *_: None)
    for planted in (MEASURED, f".{MEASURED}.part"):
        (site.scratch / planted).unlink(missing_ok=True)
        (site.scratch / planted).symlink_to(journal)
        assert visit._lay_out(timing_key(host))
        assert (site.scratch / MEASURED).read_bytes() == b"measured"
    (site.scratch / f".{MEASURED}.part").mkdir()
    assert not visit._lay_out(timing_key(host))
    assert journal.read_text() == "mine"
    shutil.rmtree(site.scratch)


# --- no builder where none is needed --------------------------------------------------------------


def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process that is started fail at once."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))


def test_what_is_all_at_hand_needs_no_builder_not_even_in_the_next_life(
    equipped: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_processes(monkeypatch)
    (first,) = asyncio.run(equipped.equip(equipped.workshop()))
    assert Path(first.path) == equipped.built()[0]


def lose_the_engine(site: Site, _patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(site.built()[0].parent)


def damage_the_engine(site: Site, _patch: pytest.MonkeyPatch) -> None:
    (path,) = site.built()
    path.chmod(0o644)
    path.write_bytes(b"x")


def change_the_host(_site: Site, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TensorRt, "outlook", lambda _self: "another driver")


def doubt_the_host(site: Site, _patch: pytest.MonkeyPatch) -> None:
    site.workshop().doubt(RUNG)


def forget_everything(site: Site, _patch: pytest.MonkeyPatch) -> None:
    (site.engines / "surveys.json").write_bytes(b"{")


@pytest.mark.parametrize(
    "change",
    [lose_the_engine, damage_the_engine, change_the_host, doubt_the_host, forget_everything],
)
def test_a_builder_looks_again_whenever_anything_is_in_doubt(
    equipped: Site,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Site, pytest.MonkeyPatch], None],
) -> None:
    change(equipped, monkeypatch)
    no_processes(monkeypatch)
    with pytest.raises(ChildError) as caught:
        asyncio.run(equipped.equip(equipped.workshop()))
    assert caught.value.code == "DIED"


def test_another_workspace_is_another_engine(
    equipped: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_processes(monkeypatch)
    other = msgspec.structs.replace(POLICY, workspace_mib=7)
    with pytest.raises(ChildError):
        asyncio.run(equipped.equip(equipped.workshop(other)))


def test_what_is_at_hand_does_not_wait_for_the_build_of_another(equipped: Site) -> None:
    site = equipped

    async def scene() -> None:
        workshop = site.workshop()
        wanted = await site.equip(workshop)
        site.fault.write_text("hang looking")
        slow = msgspec.structs.replace(site.bringup, rung="tensorrt-rtx:tf32")
        building = asyncio.create_task(workshop.engines(slow, lambda _detail, _percent: None))
        there = site.scratch.glob
        await asyncio.to_thread(until, lambda: list(there("builder-*")), "a builder")
        assert await site.equip(workshop) == wanted
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building

    asyncio.run(scene())


# --- engines that the bundle brings, on a host that nobody has looked at yet ----------------------


def bringing(site: Site, gpu: str) -> Bringup:
    """Let the bundle bring an engine for a GPU."""
    manifest, path = site.bringup.manifest, "engines/one/engine"
    host = EngineHost("tensorrt-rtx", "1.7.1", gpu, "8.9")
    key = engine_key(manifest, manifest.graphs["main"], RUNG, host, ["STRONGLY_TYPED"], 1024)
    files = [*manifest.files, FileEntry(path, 1, "5" * 64)]
    with_file = msgspec.structs.replace(manifest, files=files)
    carried = (CarriedEngine("main", path, key),)
    return msgspec.structs.replace(site.bringup, manifest=with_file, carried=carried)


def test_one_that_fits_is_taken_from_the_store_and_nothing_is_built(site: Site) -> None:
    site.bringup = bringing(site, "Pretended GPU")
    (engine,) = asyncio.run(site.equip(site.workshop()))
    assert engine.path == str(site.bringup.bundle_path / "engines/one/engine")
    assert engine.sha256 == "5" * 64
    assert not site.built()


def test_one_that_does_not_fit_is_told_before_anything_is_built(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.bringup = bringing(site, "NVIDIA L4")
    with pytest.raises(CarriedUnfit, match="found one in the bundle for GPU NVIDIA L4") as caught:
        asyncio.run(site.equip(site.workshop()))
    assert caught.value.code == "CarriedEngineUnfit"
    no_processes(monkeypatch)
    with pytest.raises(CarriedUnfit):
        asyncio.run(site.equip(site.workshop()))
    assert not site.built()


# --- under a real daemon --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A daemon whose builders have little time and memory."""
    folder = tmp_path_factory.mktemp("daemon")
    limits = '[builder]\npriority = "normal"\ntime_limit_s = 4\nmemory_mib = 256\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDER_FAULT", str(folder / "fault"))
        patch.setenv("BUILDER_LIBRARY", "stub")
        with Appliance(folder, settings=limits, start=False) as started:
            started.start(DAEMON)
            go_live(started, 1)
            yield started


def test_what_serves_does_not_notice_builders_beyond_their_limits_and_the_next_one_is_clean(
    appliance: Appliance,
) -> None:
    fault = appliance.work / "fault"
    with Load(appliance.client, 1, pause_s=0.01) as load:
        fault.write_text("hang building")
        hung = against_the_rung(appliance, "hangs", 1)
        assert "did not finish Build within 5 s" in hung.reason
        assert "builder.time_limit_s" in hung.mend
        fault.write_text("eat building")
        fat = against_the_rung(appliance, "eats", 2)
        assert "expected at most 256 MiB of memory, found" in fat.reason
        assert "builder.memory_mib" in fat.mend
        fault.unlink()
        assert not appliance.logged("engine_built")
        assert "expected an NVIDIA GPU" in against_the_rung(appliance, "clean", 2).reason
        assert len(appliance.logged("engine_built")) == 1
    load.assert_flawless()
    scratch = appliance.root / "state" / "scratch"
    appliance.wait_for(lambda: not list(scratch.glob("builder-*")), "their scratch folders to go")


def against_the_rung(appliance: Appliance, name: str, layers: int) -> RungFacts:
    """Drop a model that has not been built yet; what speaks against its first rung."""
    graph = convolutions(layers=layers)
    appliance.drop(make_sample_bundle(appliance.work, appliance.author, graph, name=name))
    assert appliance.wait_live(name, "1.0.0").rung == "onnxruntime:cpu"
    rung, _ = appliance.ask(op.GetReport(name), op.ReportReply).rungs
    return rung
