"""A driver of NVIDIA that is none, for processes that shall find a GPU, or trouble with one.

It is compiled when it is wanted (fake_cuda.c) and loaded before everything else, into a process and
all of its children. It knows one GPU by name and nothing that could compute: builders build,
because TensorRT for RTX needs no GPU for that, and workers find that nothing works.

>>> monkeypatch.setenv("LD_PRELOAD", str(pretended_driver(folder)))
>>> monkeypatch.setenv(SAYS, "init=100")        # else all is well
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

GPU = "Pretended GPU"
HAS_COMPILER = shutil.which("gcc") is not None
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no gcc: see the driver's source")
SAYS = "FAKE_CUDA"
MEMORY_BYTES = 16384 << 20
_SOURCE = Path(__file__).with_name("fake_cuda.c")


def pretended_driver(folder: Path) -> Path:
    """Compile a `libcuda.so.1` that says what the environment variable `SAYS` says."""
    return compiled(folder, "libcuda.so.1", _SOURCE.read_text())


def compiled(folder: Path, name: str, source: str, *options: str) -> Path:
    """Compile a shared library."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-w",
        f"-Wl,-soname,{name}",
        *options,
        "-x",
        "c",
        "-",
        "-o",
        str(path),
    ]
    subprocess.run(command, input=source, text=True, check=True)
    return path
