"""`scripts/fuzz`: one libFuzzer process for each target, a table, and findings to reproduce."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.fuzz_targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "var" / "fuzz"
PYTHON = ROOT / ".venv-fuzz" / "bin" / "python"
INPUT_BYTES = 1 << 14
INPUT_SECONDS = 10
MEMORY_MB = 2048
START_S = 300.0


class Run(NamedTuple):
    """What one target has seen."""

    name: str
    seconds: float
    inputs: int
    coverage: int
    findings: list[Path]


def main(words: list[str]) -> int:
    """Fuzz, list or reproduce."""
    if words[0] == "--list":
        print("\n".join(TARGETS))
        return 0
    if words[0] == "--reproduce":
        TARGETS[words[1]].run(Path(words[2]).read_bytes())
        print(f"{words[1]}: nothing but what is promised comes of {words[2]}")
        return 0
    names = words[1:] or list(TARGETS)
    unknown = set(names) - TARGETS.keys()
    if unknown or not words[0].isdecimal():
        print(f"expected SECONDS and targets of {', '.join(TARGETS)}; found {words}")
        return 2
    print(f"{'target':<10} {'seconds':>7} {'inputs':>10} {'edges':>6}  findings", flush=True)
    runs = [fuzz(name, int(words[0])) for name in names]
    found = [path for run in runs for path in run.findings]
    for run in runs:
        for path in run.findings:
            place = path.relative_to(ROOT)
            print(f"reproduce: scripts/fuzz --reproduce {run.name} {place}")
    return 1 if found else 0


def fuzz(name: str, seconds: int) -> Run:
    """Run one target in a process of its own."""
    corpus, findings = PLACE / "corpus" / name, PLACE / "findings"
    seeds = PLACE / "seeds" / name
    for folder in (corpus, findings, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (seeds / str(number)).write_bytes(seed)
    before = set(findings.iterdir())
    began = time.monotonic()
    done = subprocess.run(
        [
            *(str(PYTHON), "-m", "scripts.fuzz_target", name, f"-max_total_time={seconds}"),
            *(f"-max_len={INPUT_BYTES}", f"-timeout={INPUT_SECONDS}"),
            *(f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1"),
            *(f"-artifact_prefix={findings}/{name}-", str(corpus), str(seeds)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=START_S + 2 * seconds,
    )
    new = sorted(set(findings.iterdir()) - before)
    run = Run(name, time.monotonic() - began, *_figures(done.stderr), new)
    shown = ", ".join(path.name for path in new) or "none"
    print(f"{name:<10} {run.seconds:7.0f} {run.inputs:10,} {run.coverage:6}  {shown}", flush=True)
    if new or done.returncode:
        print("\n".join((done.stdout + done.stderr).splitlines()[-40:]))
    if done.returncode and not new:
        sys.exit(f"{name}: the fuzzer itself ended with {done.returncode}")
    return run


def _figures(text: str) -> tuple[int, int]:
    """Read how many inputs were tried, and how many edges of the code they reached."""
    inputs = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text)
    edges = re.findall(r"cov: (\d+)", text)
    return int(inputs[-1]) if inputs else 0, int(edges[-1]) if edges else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
