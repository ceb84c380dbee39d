"""`scripts/bench overhead`: superbrain against the bare engine, interleaved in one run.

Each round calls `session.run` in this process, then asks the daemon for the same thing, through the
gateway and on a lane, a block of calls each; so a machine that becomes slower becomes slower for
all. The graphs do next to nothing: what is left is the road. A bare ZeroMQ echo stands beside it as
the least that any server costs. The last columns are processor time, which other work on the
machine changes less than it changes the time on the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import psutil
import zmq
from onnx import TensorProto, helper

from superbrain.bundle.folder import build
from superbrain.client import Client
from superbrain.deploy.crew import WORKER_MODULE
from superbrain.deploy.gateway import GATEWAY_MODULE
from tests.support.appliance import Appliance, words

BLOCK = 50
WARM_UP = 200
CLIENTS = 8
THROUGHPUT_S = 4.0
BURN_S = 2.0
ROADS = ("gateway", "lane", "shared")
SIZES = {"100 bytes": [25], "602 KB": [3, 224, 224], "6.2 MB": [3, 720, 720]}
RECIPE = """\
schema = 1
name = "{name}"
version = "1.0.0"
sequence = 1
created = 2025-01-31T12:00:00Z
ladder = ["onnxruntime:cpu"]
[graphs.main]
path = "graphs/main.onnx"
inputs = [{{ name = "x", datatype = "FP32", shape = {shape} }}]
outputs = [{{ name = "y", datatype = "FP32", shape = [1] }}]
[interface]
inputs = [{{ name = "x", datatype = "FP32", shape = {shape} }}]
outputs = [{{ name = "y", datatype = "FP32", shape = [1] }}]
[golden.tolerances]
y = {{ kind = "close", rtol = 1e-4, atol = 1e-4 }}
"""


class Row(msgspec.Struct, frozen=True):
    """Medians over all rounds, in milliseconds, and requests a second of `CLIENTS` clients.

    The `_us` are microseconds of processor time for one request of one client.
    """

    request: str
    road: str
    in_process_ms: float
    echo_ms: float
    served_ms: float
    added_ms: float
    added_p99_ms: float
    requests_per_second: float
    client_us: float
    gateway_us: float
    worker_us: float


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench overhead")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of 50 calls each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work, Appliance(Path(work)) as appliance:
        rows = [
            row
            for label, shape in SIZES.items()
            for row in measure(appliance, label, shape, options.rounds)
        ]
    if options.json:
        print(json.dumps({"machine": machine(), "rows": msgspec.to_builtins(rows)}, indent=2))
    else:
        show(rows)
    return 0


def measure(appliance: Appliance, label: str, shape: list[int], rounds: int) -> list[Row]:
    """Measure one size on both roads."""
    name = f"bench-{shape[-1]}"
    print(f"{label}: building, proving and measuring …", file=sys.stderr)
    folder = make_folder(appliance.work, name, shape)
    appliance.drop(build(folder, [appliance.author.signing], appliance.work).path)
    appliance.wait_live(name, "1.0.0")
    x = np.ones(shape, np.float32)
    session = bare_session(folder / "graphs" / "main.onnx")
    with contextlib.ExitStack() as stack:
        asking = {
            road: stack.enter_context(asker(appliance.endpoint, road, name, x)) for road in ROADS
        }
        bare = stack.enter_context(echo(appliance.root / "echo.sock"))
        alone: list[float] = []
        echoed: list[float] = []
        served: dict[str, list[float]] = {road: [] for road in ROADS}
        for _ in range(WARM_UP):
            for ask_once in asking.values():
                ask_once()
        burned = {road: processor_us(appliance, ask_once) for road, ask_once in asking.items()}
        for _ in range(rounds):
            alone += timed(lambda: session.run(None, {"x": x}))
            echoed += timed(lambda: bare(x))
            for road, ask_once in asking.items():
                served[road] += timed(ask_once)
    return [
        Row(
            request=label,
            road=road,
            in_process_ms=statistics.median(alone),
            echo_ms=statistics.median(echoed),
            served_ms=statistics.median(times),
            added_ms=statistics.median(times) - statistics.median(alone),
            added_p99_ms=quantile(times, 0.99) - quantile(alone, 0.99),
            requests_per_second=throughput(appliance.endpoint, name, shape, road),
            client_us=burned[road][0],
            gateway_us=burned[road][1],
            worker_us=burned[road][2],
        )
        for road, times in served.items()
    ]


def processor_us(
    appliance: Appliance, ask_once: Callable[[], object]
) -> tuple[float, float, float]:
    """Microseconds of processor time a request takes: of the calling thread, gateway, workers."""
    children = appliance.children()
    gateways = [one for one in children if GATEWAY_MODULE in words(one)]
    workers = [one for one in children if WORKER_MODULE in words(one)]
    before = [time.thread_time(), burned_s(gateways), burned_s(workers)]
    count, end = 0, time.monotonic() + BURN_S
    while time.monotonic() < end:
        ask_once()
        count += 1
    after = [time.thread_time(), burned_s(gateways), burned_s(workers)]
    client, gateway, worker = (
        1e6 * (late - early) / count for early, late in zip(before, after, strict=True)
    )
    return client, gateway, worker


def burned_s(processes: list[psutil.Process]) -> float:
    """Seconds of processor time that these have taken so far."""
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


@contextlib.contextmanager
def echo(path: Path) -> Iterator[Callable[[Any], None]]:
    """One ZeroMQ hop and nothing else: what the least possible server on this socket costs."""
    endpoint = f"ipc://{path}"
    server = multiprocessing.get_context("spawn").Process(target=serve_echo, args=(endpoint,))
    server.start()
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(endpoint)

        def ask_it(x: Any) -> None:  # noqa: ANN401 - an array
            socket.send(x, copy=False)
            socket.recv()

        ask_it(np.zeros(1))
        yield ask_it
    server.kill()
    server.join()


def serve_echo(endpoint: str) -> None:
    """Answer four bytes to whatever comes."""
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind(endpoint)
        while True:
            socket.recv(copy=False)
            socket.send(b"pong")


def timed(call: Callable[[], Any]) -> list[float]:
    """Milliseconds of each call of a block."""
    times = []
    for _ in range(BLOCK):
        begin = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - begin) / 1e6)
    return times


@contextlib.contextmanager
def asker(
    endpoint: str,
    road: str,
    name: str,
    x: Any,  # noqa: ANN401 - an array
) -> Iterator[Callable[[], object]]:
    """Give what asks once by one of `ROADS`; in shared memory `x` lies there already."""
    with Client(endpoint, lanes=road != "gateway") as client:
        if road != "shared":
            yield lambda: client.infer(name, {"x": x})
            return
        with client.buffers(name) as buffers:
            buffers["x"][:] = x
            yield buffers.infer


def throughput(endpoint: str, name: str, shape: list[int], road: str) -> float:
    """Answers a second that `CLIENTS` clients get together, each a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CLIENTS, spawn) as pool:
        asking = [pool.submit(ask, endpoint, name, shape, road) for _ in range(CLIENTS)]
        return sum(future.result() for future in asking)


def ask(endpoint: str, name: str, shape: list[int], road: str) -> float:
    """Ask for a while; answers a second."""
    x = np.ones(shape, np.float32)
    count = 0
    with asker(endpoint, road, name, x) as ask_once:
        for _ in range(WARM_UP):
            ask_once()
        begin = time.monotonic()
        while (took := time.monotonic() - begin) < THROUGHPUT_S:
            ask_once()
            count += 1
    return count / took


def bare_session(path: Path) -> onnxruntime.InferenceSession:
    """Make the session that an in-process program would use, with the settings of the daemon."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def make_folder(parent: Path, name: str, shape: list[int]) -> Path:
    """Write an author's folder with a graph that takes the largest element."""
    folder = parent / name
    (folder / "graphs").mkdir(parents=True)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["flat"], ["y"], axes=[0], keepdims=1),
        ],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    graph.node.insert(0, helper.make_node("Reshape", ["x", "all"], ["flat"]))
    graph.initializer.append(helper.make_tensor("all", TensorProto.INT64, [1], [-1]))
    opset = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "graphs/main.onnx"
    )
    rng = np.random.default_rng(0)
    x = rng.random(shape, np.float32)
    for kind, tensor, value in (("request", "x", x), ("response", "y", x.max().reshape(1))):
        path = folder / "golden" / "noise" / kind / f"{tensor}.npy"
        path.parent.mkdir(parents=True)
        np.save(path, value)
    (folder / "bundle.toml").write_text(RECIPE.format(name=name, shape=shape))
    return folder


def quantile(values: list[float], share: float) -> float:
    """Give the value below which `share` of all values lie."""
    return sorted(values)[int(share * (len(values) - 1))]


def machine() -> str:
    """Say in a few words what was measured on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def show(rows: list[Row]) -> None:
    """Print a table."""
    print(f"{machine()}; medians of one run, milliseconds\n")
    columns = ("in-process", "bare echo", "served", "added", "added p99", f"{CLIENTS} clients/s")
    burned = ("client us", "gateway us", "worker us")
    print(f"{'request':<12}{'road':<9}" + "".join(f"{one:>14}" for one in (*columns, *burned)))
    for row in rows:
        figures = (row.in_process_ms, row.echo_ms, row.served_ms, row.added_ms, row.added_p99_ms)
        cells = "".join(f"{figure:>14.3f}" for figure in figures)
        cells += f"{row.requests_per_second:>14.0f}"
        cells += "".join(f"{us:>14.0f}" for us in (row.client_us, row.gateway_us, row.worker_us))
        print(f"{row.request:<12}{row.road:<9}{cells}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
