"""The package as a whole: its version, its types, and what importing it costs."""

import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files

import superbrain


def test_installed_version_is_the_version_in_the_source() -> None:
    assert version("superbrain") == superbrain.__version__


def test_package_says_that_it_is_typed() -> None:
    assert files(superbrain).joinpath("py.typed").is_file()


def test_importing_the_client_loads_nothing_of_the_daemon() -> None:
    program = "import sys, superbrain.client; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name.split(".")[1] for name in modules if name.startswith("superbrain.")}
    assert ours <= {"client", "wire", "transport"}
    assert not {"onnxruntime", "cv2", "psutil", "pynvml", "securesystemslib"} & set(modules)
