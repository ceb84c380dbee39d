"""`scripts/bench tail`: what callers of a model feel while models are verified, loaded and swapped.

Clients ask one model all the time. In turns nothing happens, another model is replaced again and
again (verified, loaded, proven, swapped, its predecessor ended), or the model itself is. Blocks
take turns, so that a machine that becomes slower becomes slower for all three.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from scripts.bench_overhead import machine, quantile
from scripts.peers_models import BenchModel, make_model
from scripts.peers_servers import in_background
from superbrain.bundle.folder import build
from superbrain.cli.load.figures import Plan, Taken
from superbrain.cli.load.generator import Callers, Target
from tests.support.appliance import Appliance

CLIENTS = 4
BLOCK_S = 6.0
SWAPS_A_BLOCK = 4
PAUSE_S = 0.3
SLOW_MS = 100.0
ROADS = {"gateway": False, "lane": True}
FOR_EVER_S = 120.0


class Row(msgspec.Struct, frozen=True):
    """All answers of one kind of block, in milliseconds; `ratio` is p99 to the steady p99."""

    model: str
    road: str
    meanwhile: str
    answers: int
    swaps: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    worst_ms: float
    slow: int
    failed: int
    ratio: float


class Releases:
    """Bundles of one model, built beforehand, to be dropped one after the other."""

    def __init__(self, appliance: Appliance, model: BenchModel, count: int) -> None:
        self.name = model.name
        self._appliance = appliance
        keys = [appliance.author.signing]
        folders = [model.folder, *(model.release(number) for number in range(2, count + 2))]
        self._built = [build(folder, keys, appliance.work).path for folder in folders]
        self._number = 0

    def next(self) -> None:
        """Drop the next version and wait until it serves."""
        self._number += 1
        self._appliance.drop(self._built[self._number - 1])
        self._appliance.wait_live(self.name, f"{self._number}.0.0")


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench tail")
    parser.add_argument("--rounds", type=int, default=4, help="of three blocks on each road")
    parser.add_argument("--models", default="tiny,squeezenet", metavar="NAME,NAME")
    parser.add_argument("--pause", type=float, default=PAUSE_S, metavar="S", help="between swaps")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as work, Appliance(Path(work)) as appliance:
            rows += measure(appliance, name, options.rounds, options.pause)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": msgspec.to_builtins(rows)}, indent=2))
    else:
        show(rows)
    return 0


def measure(appliance: Appliance, name: str, rounds: int, pause_s: float) -> list[Row]:
    """Measure one model on both roads."""
    print(f"{name}: building bundles …", file=sys.stderr)
    swaps = rounds * len(ROADS) * SWAPS_A_BLOCK + 1
    model = make_model(appliance.work / "asked", name)
    other = make_model(appliance.work / "other", "squeezenet")._replace(name="other")
    mine, others = Releases(appliance, model, swaps), Releases(appliance, _renamed(other), swaps)
    mine.next()
    others.next()
    kinds: dict[str, Callable[[], None] | None] = {
        "nothing": None,
        "another is swapped": others.next,
        "it is swapped itself": mine.next,
    }
    loads: dict[tuple[str, str], list[Taken]] = {}
    for number in range(rounds):
        for road, lanes in ROADS.items():
            request = {model.input: model.x}
            target = Target(appliance.endpoint, name, [request], lanes, False, 30.0)
            with Callers(target) as callers:
                for kind, happens in kinds.items():
                    print(f"round {number + 1} of {rounds}: {road}, {kind}", file=sys.stderr)
                    loads.setdefault((road, kind), []).append(block(callers, happens, pause_s))
    rows = [row(name, road, kind, taken) for (road, kind), taken in loads.items()]
    steady = {one.road: one.p99_ms for one in rows if one.meanwhile == "nothing"}
    return [msgspec.structs.replace(one, ratio=one.p99_ms / steady[one.road]) for one in rows]


def block(callers: Callers, happens: Callable[[], None] | None, pause_s: float) -> Taken:
    """Ask while something happens `SWAPS_A_BLOCK` times, or for `BLOCK_S` seconds."""
    plan = Plan(CLIENTS, 0, 0.3, BLOCK_S if happens is None else FOR_EVER_S)
    callers.prepare(plan)
    if happens is None:
        return callers.run(plan, 0, lambda: False)
    return callers.run(plan, 0, in_background(happens, SWAPS_A_BLOCK, pause_s=pause_s))


def row(model: str, road: str, kind: str, loads: list[Taken]) -> Row:
    """Put all blocks of a kind together."""
    times = [time for load in loads for time in load.latencies_ms]
    return Row(
        model=model,
        road=road,
        meanwhile=kind,
        answers=len(times),
        swaps=0 if kind == "nothing" else SWAPS_A_BLOCK * len(loads),
        p50_ms=statistics.median(times),
        p99_ms=quantile(times, 0.99),
        p999_ms=quantile(times, 0.999),
        worst_ms=max(times),
        slow=sum(time > SLOW_MS for time in times),
        failed=sum(sum(load.errors.values()) for load in loads),
        ratio=1.0,
    )


def _renamed(model: BenchModel) -> BenchModel:
    recipe = model.folder / "bundle.toml"
    recipe.write_text(recipe.read_text().replace('name = "squeezenet"', 'name = "other"', 1))
    return model


def show(rows: list[Row]) -> None:
    """Print a table."""
    print(f"{machine()}; {CLIENTS} clients; all answers of one run, milliseconds\n")
    columns = ("answers", "swaps", "p50", "p99", "p99.9", "worst", ">100 ms", "lost", "p99 ratio")
    print(f"{'model':<12}{'road':<9}{'meanwhile':<22}" + "".join(f"{one:>10}" for one in columns))
    for one in rows:
        figures = (one.p50_ms, one.p99_ms, one.p999_ms, one.worst_ms)
        cells = f"{one.answers:>10,}{one.swaps:>10}" + "".join(f"{ms:>10.2f}" for ms in figures)
        cells += f"{one.slow:>10}{one.failed:>10}{one.ratio:>10.2f}"
        print(f"{one.model:<12}{one.road:<9}{one.meanwhile:<22}{cells}")


if __name__ == "__main__":
    begin = time.monotonic()
    code = main(sys.argv[1:])
    print(f"took {time.monotonic() - begin:.0f} s", file=sys.stderr)
    sys.exit(code)
