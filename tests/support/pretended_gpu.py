"""A driver of NVIDIA that is none, for daemons whose builders shall find a GPU.

It is compiled when it is wanted and loaded before everything else, into the daemon and all of its
children. It knows one GPU by name and nothing that could compute: builders build, because TensorRT
for RTX needs no GPU for that, and workers find that nothing works.

>>> monkeypatch.setenv("LD_PRELOAD", str(pretended_driver(folder)))
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

GPU = "Pretended GPU"
HAS_COMPILER = shutil.which("gcc") is not None
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no gcc: see the driver's source")

_SOURCE = """\
#include <string.h>
int cuInit(unsigned flags) {{ return {init}; }}
int cuDeviceGetCount(int *count) {{ *count = {count}; return 0; }}
int cuDeviceGet(int *device, int index) {{ *device = index; return 0; }}
int cuDeviceGetName(char *name, int size, int device) {{ strncpy(name, "{name}", size); return 0; }}
int cuDeviceTotalMem_v2(unsigned long *size, int device) {{ *size = 1ul << 34; return 0; }}
int cuDeviceGetAttribute(int *value, int which, int device) {{
    *value = which == 75 ? {major} : which == 76 ? {minor} : 0;
    return 0;
}}
int cuDriverGetVersion(int *version) {{ *version = {cuda}; return 0; }}
"""


def pretended_driver(
    folder: Path,
    *,
    init: int = 0,
    count: int = 1,
    capability: tuple[int, int] = (8, 9),
    cuda: int = 13_000,
) -> Path:
    """Compile a `libcuda.so.1` that answers this."""
    major, minor = capability
    source = _SOURCE.format(init=init, count=count, name=GPU, major=major, minor=minor, cuda=cuda)
    return compiled(folder, "libcuda.so.1", source)


def compiled(folder: Path, name: str, source: str) -> Path:
    """Compile a shared library."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-w",
        f"-Wl,-soname,{name}",
        "-x",
        "c",
        "-",
        "-o",
        str(path),
    ]
    subprocess.run(command, input=source, text=True, check=True)
    return path
