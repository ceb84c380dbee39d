"""`scripts/gpu-check`: everything about GPUs that can be checked on a host that has one.

Each step runs in a process of its own, so that a library that crashes or hangs costs one step and
is what the report says of it. gpu_check_steps.py has the steps, gpu_check_report.py the page. With
`--cpu` the same steps run without a GPU and say so everywhere.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from scripts.gpu_check_report import Report, Step, markdown
from scripts.gpu_check_scene import Plan, Told, machine_facts, rungs_to_check
from scripts.gpu_check_steps import TITLES
from superbrain.engines.cuda_driver import first_gpu
from superbrain.engines.port import RungUnavailable

MISSING: Final = 3
STEP_LIMIT_S: Final = 1800.0
_TAIL: Final = 1500


def main(arguments: list[str]) -> int:
    """Run the steps; 0 when nothing failed, 1 when something did, 3 when there is no GPU."""
    options = _parse(arguments)
    if not options.cpu and (missing := _missing()):
        print(f"scripts/gpu-check: {missing}", file=sys.stderr)
        return MISSING
    report = Report(
        at=dt.datetime.now(dt.UTC),
        rehearsal=options.cpu,
        command=" ".join(["scripts/gpu-check", *arguments]),
        machine=machine_facts(options.note),
    )
    plan = Plan(
        rehearsal=options.cpu, rungs=rungs_to_check(rehearsal=options.cpu), minutes=options.minutes
    )
    for name in options.steps or TITLES:
        print(f"{TITLES[name]} …", file=sys.stderr)
        step = run_step(name, plan)
        print(f"{TITLES[name]}: {step.outcome} after {step.seconds:.0f} s", file=sys.stderr)
        report = msgspec.structs.replace(report, steps=[*report.steps, step])
        if options.out:  # after each step, so that a machine that goes away leaves what it has
            options.out.write_text(_written(report, as_json=options.json), encoding="utf-8")
    print(_written(report, as_json=options.json), end="")
    return 1 if report.failed else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu-check")
    parser.add_argument("--minutes", type=float, default=2.0, help="of the soak")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--cpu", action="store_true", help="a rehearsal without a GPU")
    parser.add_argument("--steps", type=_steps, metavar="NAME,NAME", help=", ".join(TITLES))
    parser.add_argument("--json", action="store_true", help="JSON instead of Markdown")
    parser.add_argument("--note", default="", help="a line for the report, such as who rents it")
    return parser.parse_args(arguments)


def _steps(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in TITLES]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected {', '.join(TITLES)}, found {unknown[0]!r}")
    return names


def _missing() -> str:
    """Say what this host lacks; empty when it has a GPU whose driver works."""
    try:
        first_gpu()
    except RungUnavailable as error:
        return f"{error.message} (a rehearsal without: scripts/gpu-check --cpu)"
    return ""


def _written(report: Report, *, as_json: bool) -> str:
    if not as_json:
        return markdown(report)
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def run_step(name: str, plan: Plan, limit_s: float = STEP_LIMIT_S) -> Step:
    """Run one step in a process of its own."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer", Path(folder) / "log"
        command = [sys.executable, "-m", "scripts.gpu_check_steps", name, str(answer)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, msgspec.json.encode(plan).decode()],
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            ended = _wait(process, limit_s + 60 * plan.minutes)
        told = answer.read_bytes() if answer.exists() else b""
        tail = log.read_text(errors="replace")[-_TAIL:]
    seconds = time.monotonic() - begin
    if ended:
        said = f"{ended}; the last that it said: {tail}"
        return Step(name, TITLES[name], "failed", seconds, said)
    return _judged(name, msgspec.json.decode(told, type=Told), seconds)


def _judged(name: str, told: Told, seconds: float) -> Step:
    if told.skipped:
        return Step(name, TITLES[name], "skipped", seconds, told.skipped, told.found)
    wrong = told.found.wrong
    outcome, reason = ("failed", wrong[0]) if wrong else ("ok", "")
    return Step(name, TITLES[name], outcome, seconds, reason, told.found)  # type: ignore[arg-type]


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> str:
    """Wait for a step; how it ended, empty when it has answered."""
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"it did not end within {limit_s:.0f} s and was killed"
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with exit code {status}" if status else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
