"""The models that `scripts/bench peers` serves, as ONNX files and as superbrain bundles.

tiny        100 bytes in, four out: nothing but the road
squeezenet  602 KB in, 4 KB out: the network as the `onnx` package has it for its tests, with
            constant weights, which take as long to multiply as any others
image       6.2 MB in, four out: a frame of a camera
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from scripts.bench_overhead import bare_session, make_folder

SIZES = {"tiny": [25], "image": [3, 720, 720]}
MODELS = ("tiny", "squeezenet", "image")
LIGHT = "backend/test/data/light/light_squeezenet.onnx"
_RECIPE = """\
schema = 1
name = "{name}"
version = "{version}"
sequence = {sequence}
created = 2025-01-31T12:00:00Z
ladder = ["onnxruntime:cpu"]
[graphs.main]
path = "graphs/main.onnx"
inputs = [{{ name = "{input}", datatype = "FP32", shape = {shape} }}]
outputs = [{{ name = "{output}", datatype = "FP32", shape = {answer} }}]
[interface]
inputs = [{{ name = "{input}", datatype = "FP32", shape = {shape} }}]
outputs = [{{ name = "{output}", datatype = "FP32", shape = {answer} }}]
[golden.tolerances]
{output} = {{ kind = "close", rtol = 1e-4, atol = 1e-4 }}
"""


class BenchModel(NamedTuple):
    """One model: its file, the request that is always sent, and the answer to it."""

    name: str
    folder: Path
    path: Path
    input: str
    x: Any
    expected: bytes
    concurrent: bool

    def release(self, number: int) -> Path:
        """Make the author's folder of version NUMBER.0.0."""
        folder = self.folder.with_name(f"{self.name}-{number}")
        shutil.copytree(self.folder, folder)
        recipe = folder / "bundle.toml"
        text = recipe.read_text().replace('"1.0.0"', f'"{number}.0.0"')
        recipe.write_text(text.replace("sequence = 1", f"sequence = {number}"))
        return folder


def make_model(work: Path, name: str) -> BenchModel:
    """Write a model's folder below `work`."""
    known = name in SIZES
    folder = make_folder(work, name, SIZES[name]) if known else _squeezenet(work, name)
    path = folder / "graphs" / "main.onnx"
    session = bare_session(path)
    (one,) = session.get_inputs()
    x = np.random.default_rng(1).random(one.shape, np.float32)
    (answer,) = session.run(None, {one.name: x})
    return BenchModel(name, folder, path, one.name, x, answer.tobytes(), name != "image")


def _squeezenet(work: Path, name: str) -> Path:
    folder = work / name
    (folder / "graphs").mkdir(parents=True)
    source = Path(onnx.__file__).parent / LIGHT
    shutil.copy(source, folder / "graphs/main.onnx")
    session = bare_session(source)
    (one,), (out,) = session.get_inputs(), session.get_outputs()
    x = np.random.default_rng(0).random(one.shape, np.float32)
    (y,) = session.run(None, {one.name: x})
    for kind, tensor, value in (("request", one.name, x), ("response", out.name, y)):
        path = folder / "golden" / "noise" / kind / f"{tensor}.npy"
        path.parent.mkdir(parents=True)
        np.save(path, value)
    recipe = _RECIPE.format(
        name=name,
        version="1.0.0",
        sequence=1,
        input=one.name,
        output=out.name,
        shape=one.shape,
        answer=list(y.shape),
    )
    (folder / "bundle.toml").write_text(recipe)
    return folder
