"""`scripts/bench build-interference`: what callers of one model feel while an engine is built.

A real daemon serves a model; in turns nothing else happens (A), or its builder process builds an
engine of another model flat out (B): TensorRT for RTX, which needs no GPU to build, over a driver
that only pretends. Each round is one block of either, A B, then B A, and so on, so that a machine
that becomes slower becomes slower for both. A round's ratios are B's quantile to A's of the same
round; what is reported is their median over all rounds, with the least and the greatest.

Only the time during which the builder builds is measured, and how much of a processor it got then
is told: a build that starves would disturb nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import psutil

from scripts.bench_overhead import burned_s, machine, quantile
from scripts.peers_models import MODELS, make_model
from superbrain.bundle.folder import build
from superbrain.cli.load.figures import Plan, Taken
from superbrain.cli.load.generator import Callers, Target
from tests.support.appliance import Appliance
from tests.support.engines import RTX_INSTALLED, convolutions, make_sample_bundle
from tests.support.pretended_gpu import HAS_COMPILER, pretended_driver

BUILDER: Final = "superbrain.serve.builder_process"
ROADS: Final = {"gateway": False, "lane": True}
MEDIAN_LIMIT, P99_LIMIT = 1.10, 1.50
WARM_UP_S = 0.3
LEAST_S = 2.0
LEAST_CORES = 0.25  # a builder with less does not build flat out
PATIENCE_S = 600.0
_MISSING: Final = 3


class Block(msgspec.Struct, frozen=True):
    """What was measured in one block: milliseconds, and how much of a processor the builder got."""

    seconds: float
    answers: int
    p50_ms: float
    p99_ms: float
    failed: int
    builder_cores: float = 0.0


class Round(msgspec.Struct, frozen=True):
    """A block without a build and one with it, one after the other."""

    alone: Block
    building: Block

    @property
    def median(self) -> float:
        """B's median to A's."""
        return self.building.p50_ms / self.alone.p50_ms

    @property
    def p99(self) -> float:
        """B's p99 to A's."""
        return self.building.p99_ms / self.alone.p99_ms


class Spread(msgspec.Struct, frozen=True):
    """The median of some ratios, the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, ratios: list[float]) -> Spread:
        """Sum ratios up."""
        return cls(statistics.median(ratios), min(ratios), max(ratios))


class Row(msgspec.Struct, frozen=True):
    """One model on one road."""

    model: str
    road: str
    callers: int
    rounds: list[Round]
    median_ratio: Spread
    p99_ratio: Spread
    builder_cores: float
    failed: int
    starved: bool
    holds: bool


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench build-interference")
    parser.add_argument("--rounds", type=int, default=10, help="of one block of each kind")
    parser.add_argument("--block", type=float, default=8.0, metavar="S", help="seconds of a block")
    parser.add_argument("--callers", type=int, default=1, help="who ask at the same time")
    parser.add_argument("--models", default="tiny,squeezenet", metavar="NAME,NAME")
    parser.add_argument("--roads", default="lane,gateway", metavar="NAME,NAME")
    parser.add_argument(
        "--layers",
        type=int,
        default=400,
        help="of the graph that is built; more where this host is fast",
    )
    parser.add_argument("--priority", choices=("idle", "normal"), default="idle")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    _check(parser, options)
    if missing := _missing():
        print(f"build-interference: {missing}", file=sys.stderr)
        return _MISSING
    with tempfile.TemporaryDirectory() as work:
        rows = [
            _measured(Path(work) / f"{name}-{road}", name, road, options)
            for name in options.models.split(",")
            for road in options.roads.split(",")
        ]
    if options.json:
        told = {"machine": machine(), "priority": options.priority}
        print(json.dumps({**told, "rows": msgspec.to_builtins(rows)}, indent=2))
    else:
        show(rows, options.priority)
    return 0


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name, known in (("models", MODELS), ("roads", tuple(ROADS))):
        for one in getattr(options, name).split(","):
            if one not in known:
                parser.error(f"expected --{name} among {', '.join(known)}, found {one!r}")


def _missing() -> str:
    """Say what this host lacks to build an engine; empty when nothing."""
    if not RTX_INSTALLED:
        return "expected TensorRT for RTX, found it not installed; type: scripts/env dev"
    if not HAS_COMPILER:
        return "expected gcc, for a driver that pretends, found none; type: apt-get install gcc"
    return ""


def _measured(folder: Path, name: str, road: str, options: argparse.Namespace) -> Row:
    """Measure one model on one road, with a daemon of its own."""
    folder.mkdir(parents=True)
    with _appliance(folder, options.priority) as appliance:
        bench = Bench(appliance, options.layers)
        model = make_model(folder / "asked", name)
        appliance.drop(build(model.folder, [appliance.author.signing], folder).path)
        appliance.wait_live(name, "1.0.0")
        request = {model.input: model.x}
        target = Target(appliance.endpoint, name, [request], ROADS[road], False, 30.0)
        rounds = []
        with Callers(target) as callers:
            plan = Plan(options.callers, 0, WARM_UP_S, options.block)
            callers.prepare(plan)
            for number in range(options.rounds):
                print(f"{name}, {road}: round {number + 1} of {options.rounds}", file=sys.stderr)
                rounds.append(bench.round(callers, plan, building_first=number % 2 == 1))
    return _row(name, road, options.callers, rounds)


@contextmanager
def _appliance(folder: Path, priority: str) -> Iterator[Appliance]:
    """An appliance as it is installed, whose builders find a GPU that is none."""
    with Appliance(folder, start=False) as appliance:
        settings = f'[deploy]\nprobation_s = 1\n[builder]\npriority = "{priority}"\n'
        (appliance.root / "superbrain.toml").write_text(settings)
        before = os.environ.get("LD_PRELOAD")
        os.environ["LD_PRELOAD"] = str(pretended_driver(folder / "driver"))
        try:
            appliance.start()
        finally:
            del os.environ["LD_PRELOAD"]
            if before is not None:
                os.environ["LD_PRELOAD"] = before
        yield appliance


class Bench:
    """Blocks with and without a build."""

    def __init__(self, appliance: Appliance, layers: int) -> None:
        self._appliance = appliance
        self._layers = layers
        self._number = 0

    def round(self, callers: Callers, plan: Plan, *, building_first: bool) -> Round:
        """Measure one block of each kind."""
        if building_first:
            building = self._building(callers, plan)
            return Round(self._alone(callers, plan), building)
        return Round(self._alone(callers, plan), self._building(callers, plan))

    def _alone(self, callers: Callers, plan: Plan) -> Block:
        me = psutil.Process()  # looked at as often as a builder is
        return _block(callers.run(plan, 0, lambda: not me.is_running()))

    def _building(self, callers: Callers, plan: Plan) -> Block:
        """Measure while a graph that no cache knows is built, then give the build up.

        One that is built sooner than anything can be measured says that this host is fast, and
        that larger graphs are to be built from now on.
        """
        while True:
            taken, cores, took = self._built(callers, plan)
            if took >= plan.warmup_s + LEAST_S:
                return _block(taken, cores)
            self._layers *= 2
            print(f"built within {took:.1f} s; now with {self._layers} layers", file=sys.stderr)

    def _built(self, callers: Callers, plan: Plan) -> tuple[Taken, float, float]:
        """Measure during one build; what came, how much of a processor it had, and seconds."""
        version = self._drop(self._layers + self._number, "tensorrt-rtx:fp32")
        builder = self._builder(version)
        before, begin = burned_s([builder]), time.monotonic()
        seen = [before]
        taken = callers.run(plan, 0, lambda: _over(builder, seen))
        took = time.monotonic() - begin
        newer = self._drop(1, "onnxruntime:cpu")  # which ends a build that is still under way
        self._appliance.wait_live("sample", newer, patience_s=PATIENCE_S)
        return taken, (seen[-1] - before) / took, took

    def _drop(self, layers: int, rung: str) -> str:
        """Drop the next version of the other model; its name."""
        self._number += 1
        version = f"{self._number}.0.0"
        made = make_sample_bundle(
            self._appliance.work,
            self._appliance.author,
            convolutions(layers=layers),
            version=version,
            sequence=self._number,
            ladder=(rung, "onnxruntime:cpu") if rung != "onnxruntime:cpu" else (rung,),
        )
        self._appliance.drop(made)
        return version

    def _builder(self, version: str) -> psutil.Process:
        """Wait until the builder builds; its process."""

        def builds() -> bool:
            model = self._appliance.model("sample")
            candidate = model.candidate if model else None
            mine = candidate is not None and candidate.version == version
            return mine and candidate is not None and "building for" in candidate.detail

        self._appliance.wait_for(builds, f"the build of {version}", PATIENCE_S)
        (builder,) = [one for one in self._appliance.children() if _builds(one)]
        return builder


def _builds(process: psutil.Process) -> bool:
    """Whether it is a builder, and not gone already."""
    try:
        return BUILDER in process.cmdline()
    except psutil.Error:
        return False


def _over(builder: psutil.Process, seen: list[float]) -> bool:
    """Whether a builder is gone; while it is there, how long it has computed is noted."""
    try:
        seen.append(burned_s([builder]))
    except psutil.Error:
        return True
    return builder.status() == psutil.STATUS_ZOMBIE


def _block(taken: Taken, builder_cores: float = 0.0) -> Block:
    times = taken.latencies_ms
    return Block(
        seconds=taken.took_s,
        answers=len(times),
        p50_ms=statistics.median(times),
        p99_ms=quantile(times, 0.99),
        failed=sum(taken.errors.values()),
        builder_cores=builder_cores,
    )


def _row(name: str, road: str, callers: int, rounds: list[Round]) -> Row:
    median = Spread.of([one.median for one in rounds])
    p99 = Spread.of([one.p99 for one in rounds])
    cores = statistics.median(one.building.builder_cores for one in rounds)
    return Row(
        model=name,
        road=road,
        callers=callers,
        rounds=rounds,
        median_ratio=median,
        p99_ratio=p99,
        builder_cores=cores,
        failed=sum(one.alone.failed + one.building.failed for one in rounds),
        starved=cores < LEAST_CORES,
        holds=median.median < MEDIAN_LIMIT and p99.median < P99_LIMIT,
    )


def show(rows: list[Row], priority: str) -> None:
    """Print a table."""
    print(f"{machine()}; builder priority {priority}; ratios: with a build to without, per round\n")
    columns = ("p50 ms", "building", "p99 ms", "building", "builder", "lost")
    head = f"{'model':<12}{'road':<9}{'callers':>8}" + "".join(f"{one:>10}" for one in columns)
    print(f"{head}{'median ratio':>22}{'p99 ratio':>22}  limits hold")
    for row in rows:
        print(
            f"{row.model:<12}{row.road:<9}{row.callers:>8}{_figures(row)}"
            f"{_spread(row.median_ratio):>22}{_spread(row.p99_ratio):>22}"
            f"  {_verdict(row)}"
        )
    print(
        f"\nlimits: median below {MEDIAN_LIMIT:.2f}, p99 below {P99_LIMIT:.2f}; builder: "
        "processors that it had; ratios: median of all rounds (least to greatest)"
    )


def _verdict(row: Row) -> str:
    if row.starved:
        return "not tried: the builder had no processor"
    return "yes" if row.holds else "NO"


def _figures(row: Row) -> str:
    pick: tuple[Callable[[Round], float], ...] = (
        lambda one: one.alone.p50_ms,
        lambda one: one.building.p50_ms,
        lambda one: one.alone.p99_ms,
        lambda one: one.building.p99_ms,
    )
    cells = [f"{statistics.median(map(of, row.rounds)):>10.3f}" for of in pick]
    return "".join(cells) + f"{row.builder_cores:>10.2f}{row.failed:>10}"


def _spread(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.least:.2f}-{spread.greatest:.2f})"


if __name__ == "__main__":
    begin = time.monotonic()
    code = main(sys.argv[1:])
    print(f"took {time.monotonic() - begin:.0f} s", file=sys.stderr)
    sys.exit(code)
