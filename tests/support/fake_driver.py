"""Libraries of a GPU's driver, compiled for a test: what they say stands in a file.

>>> driver = FakeDriver(tmp_path)           # skips the test where there is no C compiler
>>> driver.say(count=1, celsius=51)
>>> subprocess.run(…, env=driver.environment)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
LIBRARIES = {"libnvidia-ml.so.1": "fake_nvml.c", "libcuda.so.1": "fake_cuda.c"}
L4 = {
    "memory_mib": 23_034,
    "used_mib": 4_096,
    "use": 22,
    "celsius": 51,
    "milliwatts": 38_400,
    "capability": 89,
}


class FakeDriver:
    """The libraries in a folder of their own, and the file that they read at every call."""

    def __init__(self, folder: Path, *libraries: str, options: tuple[str, ...] = ()) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("needs a C compiler to make a driver's library: apt-get install gcc")
        self._said = folder / "driver.txt"
        self._libraries = folder / "lib"
        self._libraries.mkdir()
        for library in libraries or ("libnvidia-ml.so.1",):
            source, target = SOURCES / LIBRARIES[library], self._libraries / library
            command = [
                compiler,
                "-shared",
                "-fPIC",
                "-O0",
                *options,
                "-o",
                str(target),
                str(source),
            ]
            subprocess.run(command, check=True, timeout=120)
        self.say()

    @property
    def environment(self) -> dict[str, str]:
        """Give the environment of a process that is to find this driver."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self._libraries),
            "FAKE_NVML": str(self._said),
        }

    def say(self, **figures: int) -> None:
        """Replace what it says, at once and whole."""
        fresh = self._said.with_suffix(".new")
        fresh.write_text("".join(f"{key} {value}\n" for key, value in figures.items()))
        fresh.replace(self._said)
