"""Engines that bundles bring along, under a real daemon: tried first, proven, or set aside.

One host builds an engine for real (TensorRT for RTX needs no GPU for that) and the author takes it
from that host's cache. Every row below bends it or its entry in the manifest. The host finds a GPU
that is none, and what computes in its workers is a stand-in (tests/support/engine_python.py): what
a real library says to a wrong engine has not been seen here. A version that was live before is
asked all the time.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from superbrain.cli import main as cli
from superbrain.domain import operations as op
from superbrain.domain.engine import EngineRecord
from superbrain.domain.rung_facts import RungFacts
from tests.support.appliance import Appliance
from tests.support.bundles import build_bundle
from tests.support.engine_python import BENT
from tests.support.engines import convolutions, make_sample_folder, needs_rtx
from tests.support.load import Load
from tests.support.pretended_gpu import needs_compiler, pretended_driver
from tests.support.releases import go_live

pytestmark = [pytest.mark.fault, needs_rtx, needs_compiler]

DAEMON = str(Path(__file__).parents[1] / "support" / "engine_daemon.py")
RUNG = "tensorrt-rtx:fp32"
OF_ANOTHER_GPU, DRIFTS, CRASHES = BENT
GRAPH = convolutions(layers=2)
Bend = Callable[[EngineRecord, bytes], tuple[EngineRecord, bytes]]


class Host:
    """An appliance whose workers pretend to run engines, and an author's folders."""

    def __init__(self, appliance: Appliance, folder: Path) -> None:
        self.appliance = appliance
        self.folder = folder
        self.cache = appliance.root / "state" / "engines"

    def source(self, name: str) -> Path:
        """Make an author's folder without engines."""
        return make_sample_folder(self.folder, GRAPH, name=name)

    def with_engine(self, name: str, bend: Bend | None = None) -> Path:
        """Make a folder and take an engine for it, from the cache, as an author does."""
        source = self.source(name)
        assert cli.main(["bundle", "engines", str(source), "--from", str(self.cache)]) == 0
        (record_path,) = source.glob("engines/*/record.json")
        engine = record_path.with_name("engine")
        if bend is not None:
            record = msgspec.json.decode(record_path.read_bytes(), type=EngineRecord)
            record, data = bend(record, engine.read_bytes())
            engine.chmod(0o644)
            engine.write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            record = msgspec.structs.replace(record, size_bytes=len(data), sha256=sha256)
            record_path.write_bytes(msgspec.json.encode(record))
        return source

    def drop(self, source: Path) -> None:
        self.appliance.drop(build_bundle(source, self.appliance.author))

    @contextlib.contextmanager
    def without_cache(self) -> Iterator[None]:
        """Empty the cache for a while: what comes to serve meanwhile is not from there."""
        (engine,) = self.cache.glob("*/engine")
        aside = self.folder / engine.parent.name
        shutil.move(engine.parent, aside)
        yield
        shutil.move(aside, engine.parent)

    def ladder(self, name: str) -> list[RungFacts]:
        return self.appliance.ask(op.GetReport(name), op.ReportReply).rungs

    def count(self, event: str) -> int:
        return len(self.appliance.logged(event))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that has built the engine, which an author may now take."""
    folder = tmp_path_factory.mktemp("carried")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(pretended_driver(folder / "driver")))
        patch.setenv("ENGINES_RUN", "1")
        settings = '[builder]\npriority = "normal"\n'
        with Appliance(folder, settings=settings, start=False) as appliance:
            appliance.start(DAEMON)
            patch.delenv("LD_PRELOAD")
            go_live(appliance, 1)
            made = Host(appliance, folder)
            made.drop(made.source("first"))
            assert appliance.wait_live("first", "1.0.0").rung == RUNG
            yield made


# --- rows: what is wrong with it, and what is said ------------------------------------------------


def for_gpu(record: EngineRecord, data: bytes) -> tuple[EngineRecord, bytes]:
    return with_key(record, gpu="NVIDIA L4"), data


def for_version(record: EngineRecord, data: bytes) -> tuple[EngineRecord, bytes]:
    return with_key(record, version="1.6.0.1"), data


def with_key(record: EngineRecord, **changes: str) -> EngineRecord:
    return msgspec.structs.replace(record, key=msgspec.structs.replace(record.key, **changes))


def half(record: EngineRecord, data: bytes) -> tuple[EngineRecord, bytes]:
    return record, data[: len(data) // 2]


def lies(record: EngineRecord, data: bytes) -> tuple[EngineRecord, bytes]:
    return record, data[:-16] + OF_ANOTHER_GPU


def drifts(record: EngineRecord, data: bytes) -> tuple[EngineRecord, bytes]:
    return record, data[:-16] + DRIFTS


def crashes(record: EngineRecord, data: bytes) -> tuple[EngineRecord, bytes]:
    return record, data[:-16] + CRASHES


ROWS: dict[str, tuple[Bend, str, str]] = {
    "other-gpu": (for_gpu, "not for this host", "GPU Pretended GPU, found one in the bundle"),
    "other-version": (for_version, "not for this host", "for version 1.6.0.1"),
    "half-of-it": (half, "refused", "expected TensorRT for RTX to take the engine"),
    "entry-lies": (lies, "refused", "expected TensorRT for RTX to take the engine"),
    "drifts": (drifts, "drifts", "case 'case', output 'y'"),
    "crashes": (crashes, "crashed", "was ended by SIGSEGV"),
}


def test_an_engine_that_fits_is_tried_first_and_nothing_is_built(host: Host) -> None:
    source = host.with_engine("fits")
    builders, built = host.count("builder_confined"), host.count("engine_built")
    with host.without_cache():
        host.drop(source)
        assert host.appliance.wait_live("fits", "1.0.0").rung == RUNG
    assert (host.count("builder_confined"), host.count("engine_built")) == (builders, built)
    assert host.count("engine_carried")
    (first, _) = host.ladder("fits")
    assert (first.verdict, first.reason) == (
        "chosen",
        "with the engine that the bundle brings along",
    )


def test_every_other_engine_is_set_aside_for_its_own_reason_and_one_is_built(host: Host) -> None:
    appliance = host.appliance
    with Load(appliance.client, 1, pause_s=0.01) as load:
        for name, (bend, _, _) in ROWS.items():
            host.drop(host.with_engine(name, bend))
        for name, (_, verdict, says) in ROWS.items():
            assert appliance.wait_live(name, "1.0.0").rung == RUNG
            (aside, chosen, _) = host.ladder(name)
            assert (aside.rung, aside.verdict) == (f"{RUNG} (bundle's engine)", verdict), name
            assert says in aside.reason
            assert (chosen.rung, chosen.verdict) == (RUNG, "chosen")
            steps = [step for step in appliance.history(name) if step.event == "CarriedFailed"]
            assert [says in step.detail for step in steps] == [True]
    load.assert_flawless()
