"""Builders that die, are not wanted any more, or leave a damaged engine, under a real daemon.

The daemon's builders find a GPU that is none: the engine is really built, and then no worker can
run it, so the next rung is what serves. Beside all of it a version that was live before is asked
without a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from superbrain.domain.health import ModelFacts
from tests.support.appliance import Appliance, words
from tests.support.engines import SampleGraph, convolutions, make_sample_bundle, needs_rtx
from tests.support.load import Load
from tests.support.pretended_gpu import needs_compiler, pretended_driver
from tests.support.releases import go_live

pytestmark = [pytest.mark.fault, needs_rtx, needs_compiler]

SLOW_LAYERS = 150
QUICK = convolutions(layers=2)
BUILDER = "superbrain.serve.builder_process"


class Host:
    """One appliance, and the versions of the model that is built on it."""

    def __init__(self, appliance: Appliance, folder: Path) -> None:
        self.appliance = appliance
        self._folder = folder
        self._number = 0

    def drop(self, graph: SampleGraph) -> str:
        """Drop the next version; its name."""
        self._number += 1
        version = f"{self._number}.0.0"
        self.appliance.drop(
            make_sample_bundle(
                self._folder, self.appliance.author, graph, version=version, sequence=self._number
            )
        )
        return version

    def wait_served(self, version: str) -> list[str]:
        """Wait until a version serves; what became of its first rung."""
        model = self.appliance.wait_live("sample", version)
        assert model.rung == "onnxruntime:cpu"
        steps = self.appliance.history("sample")
        failed = [one for one in steps if (one.version, one.event) == (version, "StageFailed")]
        return [one.detail for one in failed]

    def builders(self) -> list[psutil.Process]:
        return [one for one in self.appliance.children() if BUILDER in words(one)]

    def wait_building(self, version: str, stage: str) -> psutil.Process:
        """Wait until a builder is at a stage; its process."""

        def there() -> ModelFacts | None:
            model = self.appliance.model("sample")
            candidate = model.candidate if model else None
            good = candidate and candidate.version == version and stage in candidate.detail
            return model if good else None

        self.appliance.wait_for(there, f"{version} at {stage!r}")
        (builder,) = self.appliance.wait_for(self.builders, "a builder")
        return builder

    def assert_tidy(self) -> None:
        """Nothing of any builder is left but engines."""
        self.appliance.wait_for(lambda: not self.builders(), "all builders to be gone")
        state = self.appliance.root / "state"
        assert not list((state / "engines" / ".staging").iterdir())
        gone: Callable[[], bool] = lambda: not list((state / "scratch").glob("builder-*"))  # noqa: E731
        self.appliance.wait_for(gone, "their scratch folders to be gone")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("builders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(pretended_driver(folder / "driver")))
        with Appliance(folder, settings='[builder]\npriority = "normal"\n') as appliance:
            patch.delenv("LD_PRELOAD")
            go_live(appliance, 1)
            yield Host(appliance, folder)


def test_an_engine_is_built_once_and_again_only_when_it_is_damaged(host: Host) -> None:
    graph, before = convolutions(layers=3), counts(host)
    known = set(engines(host))
    assert "expected an NVIDIA GPU that works" in host.wait_served(host.drop(graph))[0]
    (engine,) = set(engines(host)) - known
    assert since(host, before) == (1, 0, 0)
    host.wait_served(host.drop(graph))
    assert since(host, before) == (1, 1, 0)
    content = engine.read_bytes()
    engine.chmod(0o644)
    engine.write_bytes(content[:-1])
    host.wait_served(host.drop(graph))
    assert since(host, before) == (2, 1, 1)
    assert engine.stat().st_size > len(content) / 2
    host.assert_tidy()


def engines(host: Host) -> list[Path]:
    return list((host.appliance.root / "state" / "engines").glob("*/engine"))


def counts(host: Host) -> tuple[int, ...]:
    """How many engines were built, taken from the cache, and found damaged."""
    names = ("engine_built", "engine_reused", "engine_damaged")
    return tuple(len(host.appliance.logged(name)) for name in names)


def since(host: Host, before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(now - then for now, then in zip(counts(host), before, strict=True))


def test_a_killed_builder_costs_its_rung_and_nothing_else(host: Host) -> None:
    with Load(host.appliance.client, 1) as load:
        for number, stage in enumerate(("looking at what", "building for")):
            version = host.drop(convolutions(layers=SLOW_LAYERS + number))
            host.wait_building(version, stage).kill()
            (failed,) = host.wait_served(version)
            assert "was ended by SIGKILL" in failed
            host.assert_tidy()
        again = host.drop(QUICK)
        assert "expected an NVIDIA GPU that works" in host.wait_served(again)[0]
    load.assert_flawless()


def test_a_newer_bundle_ends_the_build_of_an_older_one(host: Host) -> None:
    older = host.drop(convolutions(layers=SLOW_LAYERS + 3))
    builder = host.wait_building(older, "building for")
    newer = host.drop(QUICK)
    host.appliance.wait_for(lambda: not builder.is_running(), "the builder to be ended")
    assert host.appliance.wait_ended("sample", older, "ABANDONED").detail
    host.wait_served(newer)
    host.assert_tidy()


def test_a_killed_daemon_leaves_no_builder_and_no_half_of_an_engine(host: Host) -> None:
    version = host.drop(convolutions(layers=SLOW_LAYERS + 4))
    host.wait_building(version, "building for")
    host.appliance.kill()
    with pytest.MonkeyPatch.context() as patch:
        driver = host.appliance.work / "driver" / "libcuda.so.1"
        patch.setenv("LD_PRELOAD", str(driver))
        host.appliance.start()
    host.wait_served(version)
    host.appliance.wait_live("adder", "1.0.0")
    host.assert_tidy()
