"""Questions to libraries that crash, hang and lie, asked in real child processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from superbrain.cli.doctor import RUNGS_CHILD
from superbrain.domain.probe import (
    Cuda,
    CudaDevice,
    Library,
    OnnxRuntimeBuild,
    ProviderTrial,
    RungAnswers,
    Unanswered,
)
from superbrain.engines.onnx_session import import_library
from superbrain.engines.probe import ask_child, installed_packages, last_words, probe_engines
from superbrain.engines.registry import known_rungs
from superbrain.engines.tiny_graph import tiny_graph
from tests.support.pretended_gpu import GPU, HAS_COMPILER, MEMORY_BYTES, SAYS, pretended_driver

pytestmark = pytest.mark.integration

PATIENCE_S = 120.0
# Says how far it is confined before it answers.
CONFINED = """
import importlib, pathlib
from superbrain.serve import probe_process

def told(name):
    if name.endswith("probe_child"):
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        print(next(line for line in lines if line.startswith("Seccomp:")), flush=True)
    return imported(name)

imported, importlib.import_module = importlib.import_module, told
probe_process.main()
"""


def test_the_tiny_graph_doubles_what_it_gets() -> None:
    session = import_library().InferenceSession(tiny_graph(), providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": np.array([1, 2, 3], np.float32)})
    assert y.tolist() == [2, 4, 6]


def test_this_host_can_run_its_own_rung() -> None:
    found = probe_engines(PATIENCE_S, rungs_child=RUNGS_CHILD)
    assert isinstance(found.onnxruntime, OnnxRuntimeBuild)
    assert found.onnxruntime.version
    cpu = "CPUExecutionProvider"
    assert found.providers[cpu] == ProviderTrial(cpu, cpu)
    assert found.rungs["onnxruntime:cpu"] == ""
    assert tuple(found.rungs) == known_rungs()
    assert any(name.startswith("onnxruntime") for name in found.packages)


def test_rungs_are_asked_for_where_a_worker_would_run_them() -> None:
    """Behind the sandbox, of which /proc tells; unconfined, the same question is answered too."""
    command = [sys.executable, "-I", "-c", CONFINED, "rungs:onnxruntime"]
    said = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True).stdout
    status, answer = said.decode().splitlines()
    assert status == "Seccomp:\t2"
    assert json.loads(answer)["why_not"]["onnxruntime:cpu"] == ""
    outside = ask_child("rungs:onnxruntime", RungAnswers)
    assert isinstance(outside, RungAnswers)
    assert outside.why_not == json.loads(answer)["why_not"]


def test_a_provider_that_is_not_there_is_found_out() -> None:
    name = "OpenVINOExecutionProvider"
    found = ask_child(f"provider:{name}", ProviderTrial)
    assert isinstance(found, ProviderTrial)
    assert found.error or found.ran_on == "CPUExecutionProvider"


def test_a_runtime_is_found_under_whichever_of_its_names_it_is_installed() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs the extra tensorrt-rtx")
    found = ask_child("library:tensorrt-rtx", Library)
    assert isinstance(found, Library)
    assert found.version


def test_an_installed_module_has_a_version() -> None:
    found = ask_child("library:msgspec", Library)
    assert isinstance(found, Library)
    assert found.version


def test_what_cannot_be_asked_says_how_it_ended() -> None:
    found = ask_child("abacus:wood", Library)
    assert isinstance(found, Unanswered)
    assert "exit status 1" in found.why
    assert "KeyError" in found.why


def test_what_a_library_prints_last_is_told_without_colours_and_preamble() -> None:
    printed = (
        b"first\n\x1b[0;93m2026-11-25 23:08:01.123456789 [W:onnxruntime:Default, state.cc:1113 "
        b"Create] Failed to create CUDAExecutionProvider.\x07\x1b[m\n\x1b[m\n"
    )
    assert last_words(printed) == "Failed to create CUDAExecutionProvider."
    assert last_words(b"\n\x1b[m\n") == ""


def test_two_packages_over_each_other_are_both_seen(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu", "innocent"):
        info = tmp_path / f"{name}-1.2.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
    found = installed_packages([str(tmp_path)])
    assert found == {"onnxruntime": "1.2.3", "onnxruntime-gpu": "1.2.3"}


# --- drivers made here ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the environment of a process that finds a driver made here."""
    if not HAS_COMPILER:
        pytest.skip("needs a C compiler to make a driver's library: apt-get install gcc")
    made = pretended_driver(tmp_path_factory.mktemp("driver"))
    return {**os.environ, "LD_LIBRARY_PATH": str(made.parent)}


def test_a_driver_tells_its_devices(driver: dict[str, str]) -> None:
    found = ask_child("cuda", Cuda, environment=driver)
    assert found == Cuda(True, "13.1", devices=[CudaDevice(GPU, "8.9", MEMORY_BYTES)])


def test_a_driver_without_a_device_says_so(driver: dict[str, str]) -> None:
    found = ask_child("cuda", Cuda, environment={**driver, SAYS: "init=100"})
    assert isinstance(found, Cuda)
    assert found.error.startswith("cuInit answers 100: the driver shows no device")


def test_a_driver_that_crashes_takes_only_its_own_process_along(driver: dict[str, str]) -> None:
    found = ask_child("cuda", Cuda, environment={**driver, SAYS: "crash"})
    assert isinstance(found, Unanswered)
    assert "ended its process with SIGABRT" in found.why


def test_a_driver_that_hangs_is_given_up(driver: dict[str, str]) -> None:
    environment = {**driver, SAYS: "hang"}
    found = ask_child("cuda", Cuda, timeout_s=2.0, environment=environment)
    assert found == Unanswered("did not answer within 2 s")
