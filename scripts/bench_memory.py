"""`scripts/bench memory`: what an appliance holds in memory and burns at rest, process by process.

Memory is the proportional set size (PSS): private pages, and of the pages that processes share each
one's part, so that the sum is what the machine gives. Beside the worker stands a bare process that
imports ONNX Runtime and holds the same session: the rest is the worker's own. Then the model is
asked, on both roads, to see what grows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil

from scripts.bench_overhead import machine, make_folder
from superbrain.bundle.folder import build
from superbrain.client import Client
from tests.support.appliance import Appliance

SHAPE = [25]
NAME = "bench"
MIB = 1 << 20
BARE = """\
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print("ready", flush=True)
sys.stdin.read()
"""


class Row(msgspec.Struct, frozen=True):
    """One process: MiB at rest and after the requests, and percent of one core at rest."""

    process: str
    rest_mib: float
    asked_mib: float
    cpu_percent: float


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench memory")
    parser.add_argument("--rest", type=float, default=20.0, help="seconds to watch the rest")
    parser.add_argument("--requests", type=int, default=20_000, help="requests on each road")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as work,
        Appliance(Path(work), start=False) as appliance,
    ):
        # As it is installed, but for the probation, which nobody wants to wait for.
        (appliance.root / "superbrain.toml").write_text("[deploy]\nprobation_s = 1\n")
        appliance.start()
        rows = measure(appliance, options.rest, options.requests)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": msgspec.to_builtins(rows)}, indent=2))
    else:
        show(rows)
    return 0


def measure(appliance: Appliance, rest_s: float, requests: int) -> list[Row]:
    """Measure an appliance that serves one small model."""
    print("building, proving and resting …", file=sys.stderr)
    folder = make_folder(appliance.work, NAME, SHAPE)
    appliance.drop(build(folder, [appliance.author.signing], appliance.work).path)
    appliance.wait_live(NAME, "1.0.0")
    processes = processes_of(appliance)
    time.sleep(2)  # what the start has left to do is no rest
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    begin = time.monotonic()
    time.sleep(rest_s)
    took = time.monotonic() - begin
    rest = {name: pss_mib(pid) for name, pid in processes.items()}
    burnt = {
        name: 100 * (cpu_seconds(pid) - before[name]) / took for name, pid in processes.items()
    }
    print(f"asking {requests} times on each road …", file=sys.stderr)
    ask(appliance.endpoint, requests)
    rows = [Row(name, rest[name], pss_mib(pid), burnt[name]) for name, pid in processes.items()]
    return [*rows, bare(folder / "graphs" / "main.onnx")]


def processes_of(appliance: Appliance) -> dict[str, int]:
    """Give the process ids of the daemon and, by what they run, of its children."""
    found = {"daemon": psutil.Process(appliance.children()[0].pid).ppid()}
    for child in appliance.children():
        kind = next(part for part in child.cmdline() if part.startswith("superbrain.serve."))
        found[kind.rpartition(".")[2]] = child.pid
    return found


def ask(endpoint: str, requests: int) -> None:
    """Ask by the gateway, then on a lane."""
    x = {"x": np.ones(SHAPE, np.float32)}
    for lanes in (False, True):
        with Client(endpoint, lanes=lanes) as client:
            for _ in client.infer_many(NAME, (x for _ in range(requests))):
                pass


def bare(graph: Path) -> Row:
    """Hold the same session in a process that does nothing else."""
    command = [sys.executable, "-I", "-c", BARE, str(graph)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdout is None or process.stdin is None or not process.stdout.readline():
            msg = f"expected a session of {graph}, found that it cannot be made"
            raise RuntimeError(msg)
        size = pss_mib(process.pid)
        process.stdin.close()
    return Row("bare session", size, size, 0.0)


def pss_mib(pid: int) -> float:
    """Give the proportional set size of a process in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / MIB
    msg = f"expected a line Pss in /proc/{pid}/smaps_rollup, found none"
    raise RuntimeError(msg)


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process so far, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def show(rows: list[Row]) -> None:
    """Print a table and the sum of the appliance's own processes."""
    own = [row for row in rows if row.process != "bare session"]
    total = Row(
        "appliance",
        sum(row.rest_mib for row in own),
        sum(row.asked_mib for row in own),
        sum(row.cpu_percent for row in own),
    )
    print(f"{machine()}, kernel {os.uname().release}\n")
    print(f"{'process':<14}{'MiB at rest':>14}{'MiB asked':>14}{'% of a core':>14}")
    for row in (*own, total, rows[-1]):
        print(
            f"{row.process:<14}{row.rest_mib:>14.1f}{row.asked_mib:>14.1f}{row.cpu_percent:>14.2f}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
