"""The steps of `scripts/gpu-check`, each a function from a plan to what it found.

    python -m scripts.gpu_check_steps NAME ANSWER PLAN

runs one and writes what it found into the file ANSWER. A step that finds something wrong says so in
`Found.wrong`; one that cannot run here raises `Skipped`; whatever else it raises is a failure too.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from scripts.gpu_check_engines import LAYERS, device, filled, graphs, trtexec
from scripts.gpu_check_models import harm, request
from scripts.gpu_check_report import Found, Table
from scripts.gpu_check_scene import (
    CPU_RUNG,
    FP16,
    GRAPHS,
    PROBE_S,
    Plan,
    Skipped,
    Told,
    appliance,
    gpus,
    is_native,
    meter,
)
from scripts.gpu_check_suites import contract, runner
from superbrain.deploy.crew import WORKER_MODULE
from superbrain.domain.diagnosis import Diagnosis
from superbrain.domain.operations import GetReport, ReportReply
from superbrain.domain.quantities import bytes_text
from superbrain.engines.tensorrt_flavour import FLAVOURS
from tests.support.appliance import Appliance
from tests.support.engines import convolutions, make_sample_bundle
from tests.support.load import GAP_S, Load
from tests.support.releases import LARGE, MODELS_MIB, go_live, release

BUILT: Final = tuple(f"{runtime}:fp32" for runtime in FLAVOURS)
SWAPS: Final = 5
HEALTH_S: Final = 5.0
LONGEST: Final = 4000
LEFT_BYTES: Final = 128 << 20
SPARE_BYTES: Final = 64 << 20
_ABOUT_GPUS: Final = ("gpu", "cuda", "nvml", "provider_cuda", "tensorrt")

Step = Callable[[Plan], Found]


def doctor(plan: Plan) -> Found:
    """What `superbrain doctor` says of this host."""
    command = [sys.executable, "-m", "superbrain.cli.main", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, timeout=PROBE_S * 3, check=False)
    if done.returncode not in (0, 1):
        return Found(wrong=[f"it ended with exit code {done.returncode}: {done.stderr[-500:]!r}"])
    diagnosis = msgspec.json.decode(done.stdout, type=Diagnosis)
    findings = [one for part in diagnosis.sections for one in part.findings]
    mine = [one for one in findings if one.id.startswith(_ABOUT_GPUS)]
    wrong = [f"{one.subject}: {one.found}" for one in mine if one.verdict == "problem"]
    if not plan.rungs:
        wrong.append("no rung on a GPU is possible here; the table says why")
    said = Table(
        ["what", "verdict", "found"], [[one.subject, one.verdict, one.found] for one in mine]
    )
    rungs = [[one.rung, "yes" if one.possible else "no", one.why_not] for one in diagnosis.rungs]
    return Found([said, Table(["rung", "possible", "why not"], rungs)], wrong=wrong)


def ladder(plan: Plan) -> Found:
    """Every rung tried by a real daemon, and the fastest chosen."""
    rungs = [*plan.onnx, CPU_RUNG]  # TorchScript would need another file: no bundle has both
    rungs[:0] = [FP16[rung] for rung in rungs if rung in FP16]
    rungs = list(dict.fromkeys([*BUILT, *rungs]))  # it says why not, where one is not possible
    with (
        tempfile.TemporaryDirectory() as work,
        appliance(plan, Path(work), pretend=True) as running,
    ):
        made = make_sample_bundle(
            Path(work),
            running.author,
            convolutions(layers=LAYERS, dynamic=False, width=64, side=128),
            ladder=rungs,
            precisions=["fp16"],
            rtol=1e-2,
            more='select = "fastest"',
        )
        running.drop(made)
        running.wait_live("sample", "1.0.0", patience_s=len(rungs) * 300.0)
        told = running.ask(GetReport("sample"), ReportReply)
    timed = {one.rung: one.milliseconds for one in told.rungs if one.milliseconds is not None}
    rows = [
        [one.rung, one.verdict, f"{one.milliseconds:.3f}" if one.milliseconds else "", one.reason]
        for one in told.rungs
    ]
    wrong = [
        f"{one.rung} {one.verdict}: {one.reason}"
        for one in told.rungs
        if one.rung in {*plan.plain} & {*plan.onnx} and one.verdict not in {"chosen", "proven"}
    ]
    if len(timed) > 1 and told.rung != min(timed, key=lambda rung: timed[rung]):
        wrong.append(f"{told.rung} was chosen, and is not the fastest of {timed}")
    return Found([Table(["rung", "became", "ms a request", "because"], rows)], wrong=wrong)


# --- a daemon under load --------------------------------------------------------------------------


def swaps(plan: Plan) -> Found:
    """Versions replaced under load, on each kind of rung."""
    rows, wrong = [], []
    for rung in _one_of_each(plan):
        with tempfile.TemporaryDirectory() as work, appliance(plan, Path(work)) as running:
            go_live(running, 1, **_on(rung))
            with Load(running.client, pause_s=0.001) as load:
                for number in range(2, SWAPS + 2):
                    go_live(running, number, **_on(rung))
            wrong += [f"{rung}: {fault}" for fault in _faults(load)]
            facts = running.model("adder")
            if facts is None or facts.rung != rung:
                wrong.append(f"{rung}: it serves on {facts.rung if facts else 'nothing'} instead")
            rows.append([rung, str(SWAPS), str(load.answered), _longest(load)])
    head = ["rung", "swaps", "answers", "longest gap, ms"]
    return Found([Table(head, rows)], wrong=wrong)


def outage(plan: Plan) -> Found:
    """A version that stops for its successor, and comes back where that fails."""
    rung = _one_of_each(plan)[0]
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        running = Appliance(folder, start=False)
        with running:
            running.configure("deploy", "memory_mib", MODELS_MIB)
            running.start()
            made = _on(rung) | LARGE
            go_live(running, 1, **made)
            with Load(running.client, pause_s=0.01) as load:
                running.drop(release(running, 2, golden_error=1.0, **made))
                running.wait_ended("adder", "2.0.0", "REJECTED")
                running.wait_live("adder", "1.0.0")
                go_live(running, 3, **made)
            ended = running.logged("outage_ended")
    rows = [[one["version"], one["outcome"], f"{one['seconds']:.1f}"] for one in ended]
    wrong = _faults(load)
    if [one["outcome"] for one in ended] != ["went back", "switched"]:
        wrong.append("expected one outage that went back and one that switched, see the table")
    return Found([Table(["for version", "ended", "seconds without an answer"], rows)], wrong=wrong)


def soak(plan: Plan) -> Found:
    """Swaps and kills of the worker under load, for minutes, and what is held at the end."""
    rung, end = _one_of_each(plan)[0], time.monotonic() + 60 * plan.minutes
    with tempfile.TemporaryDirectory() as work, appliance(plan, Path(work)) as running:
        go_live(running, 1, **_on(rung))
        measure = meter(plan, running)
        held, killed = [measure()], 0
        with Load(running.client, clients=2, pause_s=0.002) as load:
            for number in itertools.count(2):
                go_live(running, number, **_on(rung))
                killed += _kill_worker(running, f"{number}.0.0")
                held.append(measure())
                if time.monotonic() > end:
                    break
        answered = load.answered
    wrong = _faults(load)
    grown = held[-1] - held[0]
    if grown > SPARE_BYTES:
        wrong.append(f"{bytes_text(grown)} more memory is held at the end than at the beginning")
    row = [rung, f"{plan.minutes:g}", str(number - 1), str(killed), str(answered)]
    row += [bytes_text(held[0]), bytes_text(max(held)), bytes_text(held[-1])]
    head = ["rung", "minutes", "swaps", "kills", "answers", "held first", "most", "last"]
    return Found([Table(head, [row])], wrong=wrong)


def _kill_worker(running: Appliance, version: str) -> int:
    """End the worker that serves, and wait for the one in its place."""
    facts = running.model("adder")
    serving = {one.pid for one in facts.workers} if facts else set()
    killed = 0
    for one in running.children():
        with suppress(psutil.NoSuchProcess):  # a predecessor may just have ended
            if one.pid in serving and WORKER_MODULE in one.cmdline():
                one.kill()
                one.wait(10)
                killed += 1
    running.wait_live("adder", version)
    return killed


def memory(plan: Plan) -> Found:
    """What a model holds while it serves, and what is left when the daemon has ended."""
    rows, wrong = [], []
    for rung in _one_of_each(plan):
        with tempfile.TemporaryDirectory() as work:
            before = sum(one.memory_used_bytes or 0 for one in gpus())
            with appliance(plan, Path(work)) as running:
                go_live(running, 1, **_on(rung))
                measure = meter(plan, running)
                one = measure()
                go_live(running, 2, **_on(rung))
                two = measure()
                running.stop()
            after = sum(one.memory_used_bytes or 0 for one in gpus())
        if after > before + SPARE_BYTES:
            wrong.append(f"{rung}: {bytes_text(after - before)} are still held after the end")
        rows.append([rung, *map(bytes_text, (before, one, two, after))])
    head = ["rung", "GPU before", "one version", "after a swap", "GPU after the end"]
    notes = ["of the host's memory, private to the workers"] if plan.rehearsal else []
    return Found([Table(head, rows)], notes, wrong)


def room(plan: Plan) -> Found:
    """A GPU whose memory others hold: a new version is refused with figures, the old one serves."""
    if plan.rehearsal:
        raise Skipped("it takes a GPU")
    rung, rows = _one_of_each(plan)[0], []
    with tempfile.TemporaryDirectory() as work, appliance(plan, Path(work)) as running:
        go_live(running, 1, **_on(rung))
        with Load(running.client, pause_s=0.01) as load:
            with filled(LEFT_BYTES) as held:
                rows.append(["held by somebody else", bytes_text(held)])
                running.drop(release(running, 2, **_on(rung)))
                ended = running.wait_ended("adder", "2.0.0", "FAILED")
                rows.append(["version 2.0.0", ended.detail])
            go_live(running, 3, **_on(rung))
    rows.append(["version 3.0.0, when there was room again", "serves"])
    wrong = _faults(load)
    if "are free" not in ended.detail:
        wrong.append("expected to be told how much is free, see the table")
    return Found([Table(["what", "found"], rows)], wrong=wrong)


def health(plan: Plan) -> Found:
    """What the daemon's health says of the GPUs while a version serves on one."""
    rung = _one_of_each(plan)[0]
    with tempfile.TemporaryDirectory() as work, appliance(plan, Path(work)) as running:
        go_live(running, 1, **_on(rung))
        with Load(running.client, pause_s=0.001):
            time.sleep(2 * HEALTH_S)  # what is asked for below shall be about a time under load
            said = running.health()
    if plan.rehearsal and not said.gpus:
        raise Skipped("it takes a GPU")
    rows = [
        [str(gpu.index), name, _shown(value)]
        for gpu in said.gpus
        for name, value in msgspec.structs.asdict(gpu).items()
        if value not in (None, "", [])
    ]
    wrong = [] if said.gpus else ["the health report names no GPU"]
    wrong += [f"GPU {gpu.index}: {gpu.lost}" for gpu in said.gpus if gpu.lost]
    return Found([Table(["GPU", "fact", "figure"], rows)], wrong=wrong)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _one_of_each(plan: Plan) -> list[str]:
    """Give a rung of each runtime, and one that captures graphs by itself."""
    found: dict[tuple[str, bool], str] = {}
    for rung in plan.plain:
        found.setdefault((rung.partition(":")[0], GRAPHS in rung), rung)
    if not found:
        raise Skipped("no rung on a GPU is possible here")
    return list(found.values())


def _on(rung: str) -> dict[str, Any]:
    """What makes a version of the adder for one rung."""
    return {"ladder": (rung,), "native": is_native(rung)}


def _faults(load: Load) -> list[str]:
    faults = [*load.failed, *load.mixed, *load.backwards]
    if faults:
        return [f"{len(faults)} answers were wrong, mixed or missing; first: {faults[0]}"]
    return [] if load.answered else ["nothing was answered"]


def _longest(load: Load) -> str:
    if not load.gaps:
        return f"below {1000 * GAP_S:.0f}"
    return f"{1000 * max(gap.seconds for gap in load.gaps):.0f}"


STEPS: Final[Mapping[str, tuple[str, Step]]] = {
    "doctor": ("superbrain doctor", doctor),
    "contract": ("Engine contract suite", contract),
    "ladder": ("Ladder with select = fastest", ladder),
    "harm": ("A conversion that does harm", harm),
    "request": ("What a request costs", request),
    "device": ("Memory of the GPU, copies and captured graphs", device),
    "runner": ("Running engines, with a stand-in for TensorRT", runner),
    "graphs": ("CUDA graphs of engines", graphs),
    "swaps": ("Swaps under load", swaps),
    "outage": ("Brief outage", outage),
    "soak": ("Soak", soak),
    "memory": ("Memory", memory),
    "room": ("A GPU without room", room),
    "health": ("Health of the GPU", health),
    "trtexec": ("Beside trtexec", trtexec),
}
TITLES: Final[Mapping[str, str]] = {name: title for name, (title, _) in STEPS.items()}


def run(name: str, plan: Plan) -> Told:
    """Run a step; what it raises is what it found wrong."""
    try:
        return Told(STEPS[name][1](plan))
    except Skipped as error:
        return Told(skipped=str(error))
    except Exception as error:  # noqa: BLE001 - a check that breaks has failed, and says by what
        said = f"{type(error).__name__}: {error}"
        if len(said) > LONGEST:  # what a daemon logged last is at the end
            said = f"{said[:500]} … {said[-LONGEST:]}"
        return Told(Found(wrong=[said]))


if __name__ == "__main__":
    step, answer, plan_text = sys.argv[1:]
    told = run(step, msgspec.json.decode(plan_text, type=Plan))
    Path(answer).write_bytes(msgspec.json.encode(told))
