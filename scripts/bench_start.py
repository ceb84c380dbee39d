"""`scripts/bench start`: what a worker costs to start, forked and as a Python of its own.

Both load the same small bundle and prove it, in turn, round after round. Time on the clock counts
from the order to start it to its proof, memory is what no other process shares with it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import NoReturn

import msgspec
import psutil

from scripts.bench_overhead import machine
from superbrain.bundle.store import Store
from superbrain.deploy.crew import Bringup, Worker, Workplace
from superbrain.deploy.fork_server import ForkServer, ForkServerError
from superbrain.domain.sandbox import SandboxPolicy
from tests.support.bundles import make_bundle, sign_key, verified

RUNG = "onnxruntime:cpu"
MIB = 1 << 20
KINDS = ("forked", "of its own")


class Sample(msgspec.Struct, frozen=True):
    """One worker: milliseconds on the clock and of processors until its proof, its own MiB."""

    ms: float
    cpu_ms: float
    own_mib: float


class _NoForkServer(ForkServer):
    """One that forks nothing, so that every worker begins as a Python of its own."""

    async def fork(self, channel: socket.socket) -> NoReturn:
        """Say so."""
        raise ForkServerError(channel)


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench start")
    parser.add_argument("--rounds", type=int, default=20, help="workers of each kind")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sb-") as work:
        samples = asyncio.run(measure(Path(work), options.rounds))
    if options.json:
        told = {kind: msgspec.to_builtins(found) for kind, found in samples.items()}
        print(json.dumps({"machine": machine(), "samples": told}, indent=2))
    else:
        show(samples)
    return 0


async def measure(folder: Path, rounds: int) -> dict[str, list[Sample]]:
    """Start one of each kind, round after round; the fork server itself before the first."""
    bringup = stored(folder)
    servers = {"forked": ForkServer(), "of its own": _NoForkServer()}
    samples: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    try:
        await sample(bringup, servers["forked"])
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} …", file=sys.stderr)
            for kind in KINDS:
                samples[kind].append(await sample(bringup, servers[kind]))
    finally:
        await servers["forked"].stop()
    return samples


def stored(folder: Path) -> Bringup:
    """Put a small bundle into a store."""
    author = sign_key(folder / "keys")
    built = make_bundle(folder, author)
    bundle = verified(built, author)
    with built.path.open("rb") as file:
        path = Store(folder / "store", reserve_bytes=0).receive(file, bundle)
    (folder / "lanes").mkdir()
    place = Workplace(folder / "lanes", folder / "scratch", SandboxPolicy(), ForkServer())
    return Bringup(1, path, bundle.digest, bundle.manifest, RUNG, place)


async def sample(bringup: Bringup, fork_server: ForkServer) -> Sample:
    """Start a worker, let it prove its bundle, and end it."""
    place = msgspec.structs.replace(bringup.workplace, fork_server=fork_server)
    began = monotonic()
    worker = await Worker.load(msgspec.structs.replace(bringup, workplace=place))
    await worker.prove(bringup.manifest)
    took_s = monotonic() - began
    process = psutil.Process(worker.child.pid)
    times = process.cpu_times()
    found = Sample(1000 * took_s, 1000 * (times.user + times.system), own_mib(process))
    await worker.end()
    return found


def own_mib(process: psutil.Process) -> float:
    """Give the memory that no other process shares, in MiB."""
    return float(process.memory_full_info().uss) / MIB


def show(samples: dict[str, list[Sample]]) -> None:
    """Print a table of medians, and the ratio of the two kinds."""
    rows = {
        kind: [statistics.median(getattr(one, name) for one in found) for name in FIGURES]
        for kind, found in samples.items()
    }
    print(f"{machine()}, {len(samples[KINDS[0]])} workers of each kind\n")
    print(f"{'worker':<14}{'ms':>10}{'processor ms':>14}{'own MiB':>10}")
    for kind, figures in rows.items():
        print(f"{kind:<14}{figures[0]:>10.0f}{figures[1]:>14.0f}{figures[2]:>10.1f}")
    ratios = [first / second for first, second in zip(*rows.values(), strict=True)]
    print(f"{'ratio':<14}{ratios[0]:>10.2f}{ratios[1]:>14.2f}{ratios[2]:>10.2f}")


FIGURES = ("ms", "cpu_ms", "own_mib")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
