"""An author's folder and `superbrain bundle`, as a test types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from superbrain.cli.main import main
from tests.support.graphs import DOUBLE, save_graph
from tests.support.models import write_file

Superbrain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def superbrain(capfd: pytest.CaptureFixture[str]) -> Superbrain:
    """Run `superbrain bundle …`; gives exit code, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        code = main(["bundle", *map(str, words)])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def folder(tmp_path: Path, superbrain: Superbrain) -> Path:
    """A folder as `init` makes it of DOUBLE."""
    model = save_graph(tmp_path / "double.onnx", DOUBLE)
    assert superbrain("init", model, "--directory", tmp_path / "double")[0] == 0
    return tmp_path / "double"


@pytest.fixture
def recorded(folder: Path, superbrain: Superbrain) -> Path:
    """The same with one golden case."""
    given = save_array(folder.parent / "given.npy", 1, 2)
    code, _, errors = superbrain("record-golden", folder, "--case", "one", "--input", f"x={given}")
    assert (code, errors) == (0, "")
    return folder


def save_array(path: Path, *values: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(values, np.float32))
    return path


def change(folder: Path, old: str, new: str) -> None:
    """Edit bundle.toml."""
    path = folder / "bundle.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def add_code(folder: Path, code: str) -> None:
    write_file(folder / "code/pipeline.py", code)


def pipeline(postprocess: str, head: str = "") -> str:
    return (
        f"import numpy as np\n{head}\nclass Pipeline:\n    def __init__(self, bundle): ...\n"
        f"    def preprocess(self, request): return request\n"
        f"    def postprocess(self, outputs, request):\n        {postprocess}\n"
    )
