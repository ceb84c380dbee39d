"""Those steps of `scripts/gpu-check` that are test suites: how they end, and what a run takes."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from scripts.gpu_check_report import Found, Table
from scripts.gpu_check_scene import CPU_RUNG, Plan, Skipped
from superbrain.engines.device_memory import DEFAULT, OPT_IN, Device, open_device
from superbrain.engines.port import RungUnavailable
from superbrain.engines.tensorrt_run import CAPTURE_AFTER, Runner
from tests.support.devices import HOST
from tests.support.host_device import HostDevice
from tests.support.standin_kernels import kernels_on
from tests.support.standin_models import Affine
from tests.support.standin_tensorrt import Engine, Library

CONTRACT: Final = "tests/unit/engines/test_engine_contract.py"
DEVICES: Final = "tests/unit/engines/test_devices.py"
RUNNER: Final = "tests/unit/engines/test_tensorrt_run.py"
WHAT_IT_IS: Final = (
    "a stand-in for TensorRT's contexts launches real kernels; "
    "nothing here says that TensorRT works"
)
NO_KERNELS: Final = (
    "a stand-in for TensorRT's contexts, on a device in the host's memory: no GPU at all"
)
ELEMENTS: Final = 4096
RUNS: Final = 500
_KINDS: Final = ("passed", "failed", "skipped")
_TAGS: Final = {"failure": "failed", "error": "failed", "skipped": "skipped"}


def contract(plan: Plan) -> Found:
    """The suite that every engine must pass, on every rung that this host can make."""
    cases, said = run_suite(CONTRACT)
    if not cases:
        return Found(wrong=[said])
    counts, wrong, notes = count_cases(cases, [*plan.plain, CPU_RUNG])
    rows = [[rung, *(str(found[kind]) for kind in _KINDS)] for rung, found in counts.items()]
    wrong += [f"{rung}: nothing of it ran" for rung in plan.plain if not counts[rung]["passed"]]
    return Found([Table(["rung", *_KINDS], rows)], notes, wrong)


def runner(plan: Plan) -> Found:
    """What runs TensorRT's engines, with a stand-in for them: its tests, and what a run takes."""
    rows, wrong, notes = [], [], [NO_KERNELS if plan.rehearsal else WHAT_IT_IS]
    for backend in (HOST,) if plan.rehearsal else (DEFAULT, OPT_IN):
        try:
            timed = _timed(backend)
        except RungUnavailable as error:
            notes.append(f"{backend}: {error.message}")
            continue
        cases, said = run_suite(DEVICES, RUNNER, "-k", backend)
        counts, failed, skipped = count_all(cases)
        rows.append([backend, *(str(counts[kind]) for kind in _KINDS), *timed])
        wrong += [f"{backend}: {one}" for one in (failed if cases else [said])]
        notes += [f"{backend}: {one}" for one in skipped]
    if not rows:
        raise Skipped(notes[-1])
    head = ["backend", *_KINDS, "a run, median µs", "captured, median µs"]
    return Found([Table(head, rows)], notes, wrong)


def run_suite(*arguments: str) -> tuple[list[ET.Element], str]:
    """Run tests in a process of their own: every case, or what was said instead."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "suite.xml"
        command = [sys.executable, "-m", "pytest", *arguments, "-q", "-p", "no:randomly"]
        done = subprocess.run(
            [*command, f"--junitxml={result}"], capture_output=True, text=True, check=False
        )
        said = f"it did not run: {done.stdout[-500:]}{done.stderr[-500:]}"
        if not result.exists():
            return [], said
        return list(ET.parse(result).getroot().iter("testcase")), said  # noqa: S314 - pytest wrote it


def outcome(case: ET.Element) -> tuple[str, str]:
    """Give how one case ended, and the sentence about it where it did not pass."""
    for tag, kind in _TAGS.items():
        found = case.find(tag)
        if found is not None:
            return kind, f"{case.get('name', '')}: {found.get('message', '')[:300]}"
    return "passed", ""


def count_all(cases: Sequence[ET.Element]) -> tuple[Counter[str], list[str], list[str]]:
    """Count a suite's cases; what failed, and what was skipped and why."""
    ended = [outcome(one) for one in cases]
    failed, skipped = ([said for kind, said in ended if kind == one] for one in _KINDS[1:])
    return Counter(kind for kind, _ in ended), failed, skipped


def count_cases(
    cases: Sequence[ET.Element], rungs: Sequence[str]
) -> tuple[dict[str, Counter[str]], list[str], list[str]]:
    """Count a suite's cases by rung; what failed, and what was skipped and why."""
    counts: dict[str, Counter[str]] = {rung: Counter() for rung in rungs}
    wrong, notes = [], []
    for case in cases:
        name = case.get("name", "")
        ids = re.split(r"[\[\]]", name)[1].split("-") if "[" in name else []
        rung = max((one for one in counts if one in ids or f"{one}]" in name), key=len, default="")
        kind, said = outcome(case)
        if rung:
            counts[rung][kind] += 1
        if kind == "failed":
            wrong.append(said)
        elif kind == "skipped" and rung:
            notes.append(said)
    return counts, wrong, notes


# --- what one run takes ---------------------------------------------------------------------------


def _timed(backend: str) -> list[str]:
    """Median microseconds of a run as it is and as a captured graph, copies in Python included."""
    device = HostDevice() if backend == HOST else open_device(backend)
    try:
        plain = f"{_median_us(device, captures=False):.1f}"
        return [plain, f"{_median_us(device, captures=True):.1f}" if device.supports_graphs else ""]
    finally:
        device.close()


def _median_us(device: Device, *, captures: bool) -> float:
    model = Affine("FLOAT", (ELEMENTS,), {})
    engine = Engine(kernels_on(device), device, model)
    made = Runner(Library, engine, device, model.declare(), captures=captures)
    x, taken = np.arange(ELEMENTS, dtype=np.float32), []
    for turn in range(RUNS + 2 * CAPTURE_AFTER):
        begin = time.perf_counter()
        (y,) = made.run({"x": x}).values()
        if turn >= 2 * CAPTURE_AFTER:
            taken.append(1e6 * (time.perf_counter() - begin))
    if not np.array_equal(y, 2 * x + ELEMENTS) or made.captured_graphs != captures:
        raise ValueError(f"expected {captures:d} captured graphs and the right answer")
    return statistics.median(taken)
