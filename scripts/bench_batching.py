"""`scripts/bench batching`: what sharing runs brings, and what waiting for others costs.

The same network four times: without batching, with it, and with a delay, adaptive or not. It is a
perceptron whose weights are read once per run, however many rows share it, which is where batching
pays even on a processor. Callers ask in a closed loop, from one process that keeps as many requests
outstanding as there are callers. Variants take turns, a second each, so that a machine that becomes
slower becomes slower for all.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scripts.bench_overhead import machine, quantile
from superbrain.bundle.folder import build
from superbrain.client import Client
from tests.support.appliance import Appliance

WIDTH, HIDDEN = 256, 2048
CALLERS = (1, 4, 8, 32)
TURN_S = 1.0
WARM_UP = 200
SIZE = 16
VARIANTS = {
    "off": "",
    "on": f"batching = {{ max_size = {SIZE} }}",
    "adaptive": f"batching = {{ max_size = {SIZE}, max_delay_ms = 2 }}",
    "fixed": f"batching = {{ max_size = {SIZE}, max_delay_ms = 2, adaptive = false }}",
}
RECIPE = """\
schema = 1
name = "{name}"
version = "1.0.0"
sequence = 1
created = 2025-01-31T12:00:00Z
ladder = ["onnxruntime:cpu"]
[graphs.main]
path = "graphs/main.onnx"
inputs = [{{ name = "x", datatype = "FP32", shape = ["N", {width}] }}]
outputs = [{{ name = "y", datatype = "FP32", shape = ["N", {width}] }}]
dynamic = {{ N = {{ min = 1, opt = 1, max = {size} }} }}
[interface]
inputs = [{{ name = "x", datatype = "FP32", shape = [-1, {width}] }}]
outputs = [{{ name = "y", datatype = "FP32", shape = [-1, {width}] }}]
[serving]
{serving}
[golden.tolerances]
y = {{ kind = "close", rtol = 1e-4, atol = 1e-4 }}
"""


class Row(msgspec.Struct, frozen=True):
    """One variant with so many callers; medians over all rounds, times in milliseconds."""

    batching: str
    callers: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench batching")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a second each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work, Appliance(Path(work)) as appliance:
        for variant, serving in VARIANTS.items():
            folder = make_folder(appliance.work, variant, serving)
            appliance.drop(build(folder, [appliance.author.signing], appliance.work).path)
            appliance.wait_live(variant, "1.0.0")
        rows = measure(appliance.endpoint, options.rounds)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": msgspec.to_builtins(rows)}, indent=2))
    else:
        show(rows)
    return 0


def measure(endpoint: str, rounds: int) -> list[Row]:
    """Measure every variant with every number of callers, in turn."""
    taken: dict[tuple[str, int], list[Row]] = collections.defaultdict(list)
    with Client(endpoint) as client:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} …", file=sys.stderr)
            for callers in CALLERS:
                for variant in VARIANTS:
                    taken[variant, callers].append(turn(client, variant, callers))
    return [
        Row(
            variant,
            callers,
            statistics.median(row.requests_per_second for row in rows),
            statistics.median(row.p50_ms for row in rows),
            statistics.median(row.p99_ms for row in rows),
        )
        for (variant, callers), rows in taken.items()
    ]


def turn(client: Client, model: str, callers: int) -> Row:
    """Keep `callers` requests outstanding for a while."""
    x = np.ones((1, WIDTH), np.float32)
    times: list[float] = []
    outstanding = collections.deque(
        (time.perf_counter(), client.submit(model, {"x": x})) for _ in range(callers)
    )
    for _ in range(WARM_UP):
        outstanding.popleft()[1].result()
        outstanding.append((time.perf_counter(), client.submit(model, {"x": x})))
    begin = time.perf_counter()
    while time.perf_counter() < begin + TURN_S:
        asked, request = outstanding.popleft()
        request.result()
        times.append((time.perf_counter() - asked) * 1000)
        outstanding.append((time.perf_counter(), client.submit(model, {"x": x})))
    took_s = time.perf_counter() - begin
    for _, request in outstanding:
        request.result()
    return Row(model, callers, len(times) / took_s, statistics.median(times), quantile(times, 0.99))


def make_folder(parent: Path, name: str, serving: str) -> Path:
    """Write an author's folder with a perceptron of one hidden layer."""
    folder = parent / name
    (folder / "graphs").mkdir(parents=True)
    rng = np.random.default_rng(0)
    weights = {
        "into": (rng.standard_normal((WIDTH, HIDDEN)) / WIDTH).astype(np.float32),
        "out": (rng.standard_normal((HIDDEN, WIDTH)) / HIDDEN).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "into"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "out"], ["y"]),
        ],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(array, label) for label, array in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "graphs/main.onnx"
    )
    for case in ("one", "another"):
        x = rng.random((1, WIDTH), np.float32)
        y = np.maximum(x @ weights["into"], 0) @ weights["out"]
        for kind, tensor, value in (("request", "x", x), ("response", "y", y)):
            path = folder / "golden" / case / kind / f"{tensor}.npy"
            path.parent.mkdir(parents=True)
            np.save(path, value)
    recipe = RECIPE.format(name=name, width=WIDTH, size=SIZE, serving=serving)
    (folder / "bundle.toml").write_text(recipe)
    return folder


def show(rows: list[Row]) -> None:
    """Print a table."""
    print(f"{machine()}; medians of one run\n")
    print(
        f"{'callers':>7}  {'batching':<10}{'requests/s':>12}{'of off':>8}{'p50 ms':>9}{'p99 ms':>9}"
    )
    without = {row.callers: row.requests_per_second for row in rows if row.batching == "off"}
    for row in rows:
        share = row.requests_per_second / without[row.callers]
        print(
            f"{row.callers:>7}  {row.batching:<10}{row.requests_per_second:>12.0f}{share:>8.2f}"
            f"{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
