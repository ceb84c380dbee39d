"""scripts/gpu-check: what it needs, its rehearsal without a GPU, how it reads what it is told."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from scripts.gpu_check import run_step
from scripts.gpu_check_engines import latency_ms
from scripts.gpu_check_report import Found, Report, Step, Table, markdown
from scripts.gpu_check_scene import Plan, rungs_to_check
from scripts.gpu_check_steps import TITLES, run
from scripts.gpu_check_suites import NO_KERNELS, count_all, count_cases

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(rehearsal=True, rungs=["onnxruntime:cpu"], minutes=0.0)
TRTEXEC = """\
[I] Throughput: 3512.27 qps
[I] Latency: min = 0.27 ms, max = 0.91 ms, mean = 0.29 ms, median = 0.283 ms
[I] GPU Compute Time: min = 0.25 ms, max = 0.3 ms, mean = 0.27 ms, median = 0.268 ms
"""


@pytest.mark.integration
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has an NVIDIA GPU")
def test_without_a_gpu_one_line_says_what_is_missing(tmp_path: Path) -> None:
    command = [str(ROOT / "scripts/gpu-check"), "--out", str(tmp_path / "report.md")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "expected an NVIDIA GPU with its driver" in line
    assert "scripts/gpu-check --cpu" in line
    assert not (tmp_path / "report.md").exists()


@pytest.mark.integration
def test_a_rehearsal_runs_the_steps_and_says_that_it_is_one(tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    steps = "harm,runner,graphs,soak"  # what the others do is in other tests
    command = [sys.executable, "-m", "scripts.gpu_check", "--cpu", "--minutes", "0"]
    done = subprocess.run(
        [*command, "--steps", steps, "--out", str(out), "--note", "a test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = out.read_text()
    assert page == done.stdout
    assert page.startswith("# superbrain rehearsal without a GPU\n")
    assert "says nothing about any GPU" in page
    assert "| note | a test |" in page
    assert f"## {TITLES['soak']}: ok (rehearsed)" in page
    assert "| onnxruntime:cpu | 0 | 1 | 1 |" in page
    assert f"## {TITLES['runner']}: ok (rehearsed)\n\n- {NO_KERNELS}" in page
    assert "| host | " in page
    harmed = "| onnxruntime:cpu-fp16 | drifts |"
    assert harmed in page or f"## {TITLES['harm']}: skipped" in page
    built = f"## {TITLES['graphs']}: ok (rehearsed)"
    assert built in page or f"## {TITLES['graphs']}: skipped" in page


def test_a_rehearsal_takes_the_processors_rung() -> None:
    assert rungs_to_check(rehearsal=True) == ["onnxruntime:cpu"]


def test_a_step_that_breaks_or_crashes_has_failed_and_the_report_says_by_what(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = run("swaps", msgspec.structs.replace(PLAN, rungs=[]))
    assert told.skipped == "no rung on a GPU is possible here"
    monkeypatch.setenv("PATH", "")
    assert run("trtexec", PLAN).skipped == "trtexec is not on the PATH"
    assert "KeyError" in run("no such step", PLAN).found.wrong[0]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    step = run_step("memory", PLAN)
    assert (step.outcome, step.seconds < 60) == ("failed", True)
    assert "exit code 1" in step.reason


def test_cases_are_counted_by_the_rung_in_their_name() -> None:
    suite = ET.fromstring(
        '<suite><testcase name="test_a[onnxruntime:cuda]"/>'
        '<testcase name="test_b[BF16-onnxruntime:cuda]"><skipped message="no type"/></testcase>'
        '<testcase name="test_c[onnxruntime:cuda-tf32]"><failure message="it is wrong"/></testcase>'
        '<testcase name="test_d"/></suite>'
    )
    rungs = ["onnxruntime:cuda", "onnxruntime:cuda-tf32"]
    counts, wrong, notes = count_cases(list(suite), rungs)
    assert dict(counts[rungs[0]]) == {"passed": 1, "skipped": 1}
    assert dict(counts[rungs[1]]) == {"failed": 1}
    assert wrong == ["test_c[onnxruntime:cuda-tf32]: it is wrong"]
    assert notes == ["test_b[BF16-onnxruntime:cuda]: no type"]


def test_cases_are_counted_as_they_ended() -> None:
    suite = ET.fromstring(
        '<suite><testcase name="a"/><testcase name="b"><error message="no fixture"/></testcase>'
        '<testcase name="c"><skipped message="no GPU"/></testcase></suite>'
    )
    counts, failed, skipped = count_all(list(suite))
    assert dict(counts) == {"passed": 1, "failed": 1, "skipped": 1}
    assert (failed, skipped) == (["b: no fixture"], ["c: no GPU"])


def test_trtexecs_median_is_that_of_the_whole_request() -> None:
    assert latency_ms(TRTEXEC) == 0.283
    with pytest.raises(ValueError, match="expected a median latency from trtexec, found: nothing"):
        latency_ms("nothing")


def test_the_page_of_a_real_check_does_not_speak_of_a_rehearsal() -> None:
    found = Found([Table(["a", "b"], [["1", "x|y"]])], ["noted"], ["it broke"])
    step = Step("swaps", "Swaps under load", "failed", 3.2, "it broke", found)
    report = Report(dt.datetime.now(dt.UTC), False, "scripts/gpu-check", {"GPU": "L4"}, [step])
    page = markdown(report)
    assert page.startswith("# superbrain GPU check\n")
    assert "rehears" not in page
    assert "**Failed: swaps.**" in page
    assert "| 1 | x\\|y |" in page
    assert report.failed == ["swaps"]
