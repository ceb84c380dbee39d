"""What the driver says: of a driver compiled for the test, or that there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from superbrain.engines.cuda_driver import driver_release
from tests.support.pretended_gpu import GPU, SAYS, needs_compiler, pretended_driver

ASK = """
from superbrain.engines.cuda_driver import first_gpu
from superbrain.engines.port import RungUnavailable
try:
    print(first_gpu())
except RungUnavailable as error:
    print(error.message, "|", error.mend)
"""


def answer(driver: Path | None, says: str = "") -> str:
    """Ask in a process of its own, in which `driver` is the host's."""
    there = {"LD_PRELOAD": str(driver), SAYS: says} if driver else {}
    command = [sys.executable, "-c", ASK]
    return subprocess.run(
        command, env=os.environ | there, capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has a driver")
def test_no_driver_is_said_and_what_to_do() -> None:
    said = answer(None)
    assert "found no libcuda.so.1 that loads" in said
    assert "nvidia-smi" in said


@needs_compiler
def test_the_first_gpu(tmp_path: Path) -> None:
    said = answer(pretended_driver(tmp_path), "major=12 minor=0 cuda=12080")
    assert said.startswith(f"Gpu(name='{GPU}', capability=(12, 0), driver=")
    assert "cuda='12.8'" in said


@needs_compiler
@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("init=100", "found that cuInit answers 100"),
        ("count=0", "found a driver that shows none"),
    ],
)
def test_a_driver_without_a_gpu(tmp_path: Path, says: str, expected: str) -> None:
    assert expected in answer(pretended_driver(tmp_path), says)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23", "570.86.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Re", "580.65.06"),
        ("something else", ""),
    ],
)
def test_the_release_of_the_kernel_module(tmp_path: Path, text: str, release: str) -> None:
    (tmp_path / "version").write_text(text)
    assert driver_release(tmp_path / "version") == release


def test_no_kernel_module_has_no_release(tmp_path: Path) -> None:
    assert not driver_release(tmp_path / "none")
