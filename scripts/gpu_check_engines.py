"""Those steps of `scripts/gpu-check` that need no daemon: engines, and memory of the GPU."""

from __future__ import annotations

import hashlib
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from scripts.gpu_check_report import Found, Table
from scripts.gpu_check_scene import GRAPHS, Plan, Skipped, builds_without_gpu, gpus
from superbrain.domain.engine import EngineFile
from superbrain.domain.quantities import bytes_text
from superbrain.engines.device_memory import DEFAULT, OPT_IN, Device, DeviceError, open_device
from superbrain.engines.port import Engine, RungUnavailable
from superbrain.engines.registry import built_runtime_for, runtime_for
from tests.support.engines import BuilderProcess, convolutions

RUNS: Final = 200
WARM_UPS: Final = 10
LAYERS: Final = 8
SIZE: Final = 64
COPIED_BYTES: Final = 16 << 20
FAR_TOO_MUCH: Final = 1 << 46
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
_TRTEXEC: Final = re.compile(r"Latency: .*?median = ([0-9.]+) ms")


def graphs(plan: Plan) -> Found:
    """Engines run again and again with the same shapes, with captured CUDA graphs."""
    rungs = _capturing_rungs(plan)
    if not rungs:
        raise Skipped("no rung that captures graphs can be used here")
    rows, notes, wrong = [], [], []
    for rung in rungs:
        with tempfile.TemporaryDirectory() as work, _builder(Path(work)) as builder:
            built = built_runtime_for(rung) is not None
            file = _built(builder, rung) if built else None
            size = bytes_text(Path(file.path).stat().st_size) if file else ""
            if plan.rehearsal:
                rows.append([rung, size, "", "", ""])
                continue
            engine = _loaded(builder, rung, file)
            first, later, drift = _run_often(engine, builder)
            by_itself = rung.startswith("tensorrt-rtx:")
            captured = "by itself" if by_itself else str(getattr(engine, "captured_graphs", 0))
            rows.append([rung, size, f"{first:.3f}", f"{later:.3f}", captured])
            engine.close()
            if drift > 1e-3:
                wrong.append(f"{rung}: its answers are off by {drift:.2g}")
            if captured == "0":
                wrong.append(f"{rung}: no graph was captured; its log says why")
    if plan.rehearsal:
        notes.append("the engines were really built, and not run: that needs a GPU")
    head = ["rung", "engine", "first runs, ms", "later runs, ms", "captured graphs"]
    return Found([Table(head, rows)], notes, wrong)


def _capturing_rungs(plan: Plan) -> list[str]:
    if plan.rehearsal:
        return ["tensorrt-rtx:fp32"] if builds_without_gpu(plan) else []
    return [rung for rung in plan.onnx if built_runtime_for(rung) or GRAPHS in rung]


def _builder(folder: Path) -> BuilderProcess:
    return BuilderProcess(folder, convolutions(layers=LAYERS))


def _built(builder: BuilderProcess, rung: str) -> EngineFile:
    data = builder.build(rung)
    return EngineFile("main", str(builder.engine), hashlib.sha256(data).hexdigest())


def _loaded(builder: BuilderProcess, rung: str, file: EngineFile | None) -> Engine:
    runtime = built_runtime_for(rung)
    graph = builder.manifest.graphs["main"]
    path = builder.bundle / graph.path
    if runtime is None or file is None:
        return runtime_for(rung).load(rung, path, graph)
    return runtime.load_built(rung, file, path, graph)


def _run_often(engine: Engine, builder: BuilderProcess) -> tuple[float, float, float]:
    """Median milliseconds of the first runs, and of those after them; the largest error."""
    x = np.random.default_rng(3).random((1, 3, SIZE, SIZE), np.float32)
    path = builder.bundle / builder.manifest.graphs["main"].path
    (expected,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    engine.run({"x": x})
    first = _median_ms(lambda: engine.run({"x": x}), 2)
    for _ in range(WARM_UPS):
        engine.run({"x": x})
    later = _median_ms(lambda: engine.run({"x": x}), RUNS)
    (y,) = engine.run({"x": x}).values()
    return first, later, float(np.max(np.abs(y - expected)))


def _median_ms(call: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - begin))
    return statistics.median(taken)


def trtexec(plan: Plan) -> Found:
    """The same graph by NVIDIA's own tool, beside what superbrain's engine takes."""
    tool = shutil.which("trtexec")
    if tool is None:
        raise Skipped("trtexec is not on the PATH")
    rung = next((one for one in plan.plain if one.startswith("tensorrt:")), "")
    if not rung:
        raise Skipped("no rung of TensorRT is possible here to compare it with")
    with tempfile.TemporaryDirectory() as work, _builder(Path(work)) as builder:
        engine = _loaded(builder, rung, _built(builder, rung))
        _, mine, _ = _run_often(engine, builder)
        engine.close()
        path = builder.bundle / builder.manifest.graphs["main"].path
        theirs = _ask_trtexec(tool, path)
    row = [rung, f"{mine:.3f}", f"{theirs:.3f}", f"{mine / theirs:.2f}"]
    note = "superbrain's figure has the copies in Python in it, trtexec's those to and from the GPU"
    head = ["rung", "superbrain, median ms", "trtexec, median ms", "ratio"]
    return Found([Table(head, [row])], [note])


def _ask_trtexec(tool: str, path: Path) -> float:
    shape = f"x:1x3x{SIZE}x{SIZE}"
    command = [tool, f"--onnx={path}", "--noTF32", "--duration=5", "--warmUp=500"]
    command += [f"--minShapes={shape}", f"--optShapes={shape}", f"--maxShapes={shape}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return latency_ms(done.stdout + done.stderr)


def latency_ms(text: str) -> float:
    """Read the median latency out of what trtexec prints."""
    found = _TRTEXEC.search(text)
    if found is None:
        raise ValueError(f"expected a median latency from trtexec, found: {text[-500:]}")
    return float(found[1])


# --- the seam to CUDA -----------------------------------------------------------------------------


def device(plan: Plan) -> Found:
    """Page-locked memory, copies there and back, and the same as one captured graph."""
    if plan.rehearsal:
        raise Skipped("it takes a GPU")
    rows, notes, wrong = [], [], []
    for backend in (DEFAULT, OPT_IN):
        try:
            opened = open_device(backend)
        except RungUnavailable as error:
            notes.append(f"{backend}: {error.message}")
            continue
        try:
            moved, faults = _there_and_back(opened)
        finally:
            opened.close()
        rows += [[backend, *row] for row in moved]
        wrong += [f"{backend}: {fault}" for fault in faults]
    if not rows:
        raise Skipped(notes[0])
    head = ["backend", "16 MiB to the GPU and back", "median ms", "GB/s"]
    return Found([Table(head, rows)], notes, wrong)


def _there_and_back(opened: Device) -> tuple[list[list[str]], list[str]]:
    """Copy there and back, also as a graph where there are any; figures, and what was wrong."""
    wrong = []
    there, back, address = _two_ends(opened)
    rows = [["copies", *_moved(opened, there, back, address)]]
    if not np.array_equal(there, back):
        wrong.append("what came back is not what was sent")
    if opened.supports_graphs:
        graph = _captured(opened, there, back, address)
        there[:] = there[::-1].copy()
        rows.append(["a captured graph", *_timed(lambda: _launched(opened, graph))])
        if not np.array_equal(there, back):
            wrong.append("a captured graph brought back something else than was sent")
    return rows, wrong + _refuses_too_much(opened)


@contextmanager
def filled(left_bytes: int) -> Iterator[int]:
    """Hold all but so much of the GPU's free memory; how much that is."""
    opened = open_device()
    try:
        free = [one.memory_total_bytes - one.memory_used_bytes for one in gpus()[:1]]  # type: ignore[operator]
        opened.allocate(free[0] - left_bytes)
        yield free[0] - left_bytes
    finally:
        opened.close()


def _two_ends(opened: Device) -> tuple[Bytes, Bytes, int]:
    there, back = opened.pinned(COPIED_BYTES), opened.pinned(COPIED_BYTES)
    there[:] = np.random.default_rng(5).integers(0, 256, COPIED_BYTES, np.uint8)
    return there, back, opened.allocate(COPIED_BYTES)


def _moved(opened: Device, there: Bytes, back: Bytes, address: int) -> list[str]:
    def once() -> None:
        opened.upload(address, there)
        opened.download(back, address)
        opened.synchronize()

    return _timed(once)


def _captured(opened: Device, there: Bytes, back: Bytes, address: int) -> object:
    opened.begin_capture()
    opened.upload(address, there)
    opened.download(back, address)
    return opened.end_capture()


def _launched(opened: Device, graph: object) -> None:
    opened.launch(graph)
    opened.synchronize()


def _timed(call: Callable[[], object]) -> list[str]:
    median = _median_ms(call, 50)
    return [f"{median:.3f}", f"{2 * COPIED_BYTES / median / 1e6:.1f}"]


def _refuses_too_much(opened: Device) -> list[str]:
    try:
        opened.allocate(FAR_TOO_MUCH)
    except DeviceError:
        opened.synchronize()  # it works on
        return []
    return ["64 TiB were granted"]
