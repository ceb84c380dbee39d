"""Those steps of `scripts/gpu-check` that ask models: one whose fp16 is wrong, what it costs."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import pytest

from scripts.bench_overhead import ROADS, asker, quantile, timed
from scripts.gpu_check_report import Found, Table
from scripts.gpu_check_scene import CPU_RUNG, FP16, Plan, Skipped, appliance
from superbrain.domain.operations import GetReport, ReportReply
from superbrain.domain.quantities import bytes_text
from superbrain.engines.onnx_cuda import CUDA_PROVIDER, cuda_options, require_cuda
from tests.support.appliance import Appliance
from tests.support.bundles import build_bundle
from tests.support.engines import SampleGraph, convolutions, make_sample_bundle
from tests.support.networks import DETECTED, harmed_detector

LEAST_COSINE: Final = 0.99
WARM_UP: Final = 20
ROUNDS: Final = 20
ROUNDS_S: Final = 10.0
GRAPHS: Final = {
    "small": convolutions(layers=1, dynamic=False, width=8, side=8),
    "larger": convolutions(layers=8, dynamic=False, width=64, side=128),
}


def harm(plan: Plan) -> Found:
    """A text detector whose fp16 loads, runs and is wrong: what serves must be another rung."""
    rung = _plain_onnx(plan)
    with tempfile.TemporaryDirectory() as work, appliance(plan, Path(work)) as running:
        try:
            folder = harmed_detector(Path(work), (FP16[rung], rung))
        except pytest.skip.Exception as missing:
            raise Skipped(str(missing)) from None
        running.drop(build_bundle(folder, running.author))
        running.wait_live("detector", "1.0.0", patience_s=300.0)
        told = running.ask(GetReport("detector"), ReportReply)
        answers = {case.name: _alikeness(running, case) for case in (folder / "golden").iterdir()}
    rows = [[one.rung, one.verdict, one.reason] for one in told.rungs]
    wrong = [
        f"page {name}: cosine {found:.4f} to what the author has recorded"
        for name, found in answers.items()
        if found < LEAST_COSINE
    ]
    verdicts = {one.rung: one.verdict for one in told.rungs}
    if verdicts != {FP16[rung]: "drifts", rung: "chosen"}:
        wrong.append(f"expected {FP16[rung]} to drift and {rung} to serve, see the table")
    notes = [f"page {name}: cosine {found:.6f}" for name, found in answers.items()]
    return Found([Table(["rung", "became", "because"], rows)], notes, wrong)


def _alikeness(running: Appliance, case: Path) -> float:
    """Cosine between what is answered to a golden case and what its author has recorded."""
    with running.client() as client:
        answer = client.infer("detector", {"x": np.load(case / "request/x.npy")})[DETECTED]
    expected = np.load(case / "response" / f"{DETECTED}.npy")
    product = float(np.vdot(answer, expected))
    return product / float(np.linalg.norm(answer) * np.linalg.norm(expected))


def request(plan: Plan) -> Found:
    """What a request costs above the same library asked in-process, by each road."""
    rung = _plain_onnx(plan)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as work, appliance(plan, Path(work)) as running:
        for name, graph in GRAPHS.items():
            made = make_sample_bundle(Path(work), running.author, graph, name=name, ladder=[rung])
            running.drop(made)
            running.wait_live(name, "1.0.0", patience_s=300.0)
            path = Path(work) / f"{name}-1.0.0" / "graphs" / "main.onnx"
            rows += _asked(running, name, graph, _bare_session(rung, path, graph))
    head = ["model", "road", "median ms", "p99 ms", "added, median ms", "added, p99 ms"]
    note = f"{rung}; blocks of requests take turns; in-process: ONNX Runtime's own run()"
    return Found([Table(head, rows)], [note])


def _bare_session(rung: str, path: Path, graph: SampleGraph) -> onnxruntime.InferenceSession:
    """The session that a program of its own would use, with the daemon's options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if rung == CPU_RUNG:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    require_cuda(onnxruntime)
    chosen = cuda_options(graph.declare("graphs/main.onnx"), tf32=False)
    session = onnxruntime.InferenceSession(path, options, providers=[(CUDA_PROVIDER, chosen)])
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise Skipped(f"in-process ONNX Runtime took {session.get_providers()[0]}")
    return session


def _asked(
    running: Appliance, name: str, graph: SampleGraph, session: onnxruntime.InferenceSession
) -> Iterator[list[str]]:
    """Ask by all roads in turns; a row for each."""
    shape = [int(size) for size in graph.inputs[0].shape]
    x: Any = np.random.default_rng(1).random(shape, np.float32)
    asking: dict[str, Callable[[], object]] = {"in-process": lambda: session.run(None, {"x": x})}
    with contextlib.ExitStack() as stack:
        for road in ROADS:
            asking[road] = stack.enter_context(asker(running.endpoint, road, name, x))
        taken: dict[str, list[float]] = {road: [] for road in asking}
        for ask_once in asking.values():
            for _ in range(WARM_UP):
                ask_once()
        end = time.monotonic() + ROUNDS_S
        for done in range(ROUNDS):
            if done and time.monotonic() > end:
                break  # a graph that is slow here
            for road, ask_once in asking.items():
                taken[road] += timed(ask_once)
    alone = taken["in-process"]
    for road, times in taken.items():
        median, late = statistics.median(times), quantile(times, 0.99)
        added = [median - statistics.median(alone), late - quantile(alone, 0.99)]
        figures = [median, late, *(added if road != "in-process" else ())]
        row = [f"{name}, {bytes_text(x.nbytes)}", road, *(f"{one:.3f}" for one in figures)]
        yield row + [""] * (6 - len(row))


def _plain_onnx(plan: Plan) -> str:
    """Give the rung of ONNX Runtime that takes a graph as it is."""
    for rung in plan.plain:
        if rung in FP16:
            return rung
    raise Skipped("ONNX Runtime cannot use a GPU here")
