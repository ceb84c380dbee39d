"""A GPU driver's NVML, compiled for a test: what it says stands in a file.

>>> driver = FakeDriver(tmp_path)           # skips the test where there is no C compiler
>>> driver.say(count=1, celsius=51)
>>> subprocess.run(…, env=driver.environment)
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.pretended_gpu import HAS_COMPILER, compiled

SOURCE = Path(__file__).with_name("fake_nvml.c")
LIBRARY = "libnvidia-ml.so.1"
L4 = {
    "memory_mib": 23_034,
    "used_mib": 4_096,
    "use": 22,
    "celsius": 51,
    "milliwatts": 38_400,
    "capability": 89,
}


class FakeDriver:
    """The library in a folder of its own, and the file that it reads at every call."""

    def __init__(self, folder: Path, options: tuple[str, ...] = ()) -> None:
        if not HAS_COMPILER:
            pytest.skip("needs a C compiler to make a driver's library: apt-get install gcc")
        self._said = folder / "driver.txt"
        self._libraries = folder / "lib"
        compiled(self._libraries, LIBRARY, SOURCE.read_text(), *options)
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
