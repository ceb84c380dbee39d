"""The real Python bindings of TensorRT, over libraries that have nothing in them.

The vendor's libraries are not in the package index, the bindings are, and they load over stubs with
the few functions that they call while they are imported. So every name that our code uses can be
held against the real thing, on any machine; nothing can be built or run that way.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pretended_gpu import HAS_COMPILER, compiled

# Package, version, and the sha256 of its files for Python 3.11, 3.12 and 3.13.
VERSIONS = {
    10: (
        "tensorrt_cu12_bindings==10.16.1.11",
        (
            "150ef2b672487e29a8ea916353467c3e199994fb33589167e3641a928e243aa7",
            "8e339335e7255b3fb3954eca61b4acbbdfcf7b28505bd711914519647ba310c8",
            "f2a08cedfa48e300720e5bed070a45e390ea67dbcf475ffce725d10e0a2b3ba7",
        ),
    ),
    11: (
        "tensorrt_cu13_bindings==11.4.0.106",
        (
            "d072ac2a095e2be749fefc847adfb25d5ebe70303401df62ede8fe67a59f27fc",
            "5fc7a6c412881f7212030893bd5531b1a0ff415c72c7678dfe4ead7a7765b38d",
            "bac9a362c9189b5f5dd0444213913846e4b46003237834958e890eff57d86ed5",
        ),
    ),
}
CACHE = Path(__file__).resolve().parents[2] / ".venv" / "bindings"
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_FUNCTIONS = [
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
]


def bindings(version: int, folder: Path) -> dict[str, str]:
    """Fetch bindings once and make their stubs; the environment in which they can be imported."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("these bindings are for Linux on x86_64")
    if not HAS_COMPILER:
        pytest.skip("no gcc to compile stubs with")
    place = CACHE / f"{version}-{sys.version_info.major}.{sys.version_info.minor}"
    if not (place / "tensorrt_bindings").exists():
        _fetch(version, place)
    source = "\n".join(f"void *{name}(void) {{ return 0; }}" for name in _FUNCTIONS)
    for name in _LIBRARIES:
        compiled(folder, f"lib{name}.so.{version}", source)
    return {"PYTHONPATH": str(place), "LD_LIBRARY_PATH": str(folder)}


def _fetch(version: int, place: Path) -> None:
    requirement, hashes = VERSIONS[version]
    place.mkdir(parents=True, exist_ok=True)
    pinned = place / "requirements.txt"
    pinned.write_text(" ".join([requirement, *(f"--hash=sha256:{one}" for one in hashes)]))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    options = ["--no-deps", "--require-hashes", "--target", str(place), "-r", str(pinned)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the bindings cannot be fetched from here: {done.stderr.strip()[-200:]}")
