"""An engine that ends its process with the GPU: only for that, and only where there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from superbrain.engines.port import ExecutionFailed
from superbrain.serve.gpu_end import GPU_BROKEN, EndsWithGpu
from superbrain.serve.model import Model
from superbrain.serve.served_bundle import ServedBundle

DIES = """\
import atexit
from types import SimpleNamespace
from superbrain.engines.port import GpuBroken
from superbrain.serve.gpu_end import EndsWithGpu

def run(inputs):
    raise GpuBroken("CUDA failure 700: an illegal memory access was encountered")

atexit.register(print, "it has cleaned up")
names = ("rung", "runtime", "inputs", "outputs", "metadata", "bound", "close")
engine = SimpleNamespace(run=run, **dict.fromkeys(names))
try:
    EndsWithGpu("main", engine).run({})
finally:
    print("it has gone on")
"""


def an_engine(run: Any) -> Any:  # noqa: ANN401
    made: Any = SimpleNamespace(
        run=run,
        rung="onnxruntime:cuda",
        runtime="a library",
        inputs=("x",),
        outputs=("y",),
        metadata={"a": "b"},
        bound=lambda: made,
        close=lambda: setattr(made, "rung", "closed"),
    )
    return made


def test_a_broken_gpu_ends_the_process_at_once_and_says_why() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIES], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (GPU_BROKEN, "")
    assert done.stderr == (
        "this process cannot use its GPU any more: "
        "CUDA failure 700: an illegal memory access was encountered\n"
    )


def test_all_else_is_passed_on() -> None:
    inner = an_engine(lambda inputs: {"y": inputs["x"]})
    engine = EndsWithGpu("main", inner)
    assert engine.run({"x": 3}) == {"y": 3}  # type: ignore[dict-item]
    for name in ("rung", "runtime", "inputs", "outputs", "metadata"):
        assert getattr(engine, name) is getattr(inner, name)
    assert engine.bound() == inner
    engine.close()
    assert inner.rung == "closed"


def test_a_run_that_failed_is_no_end() -> None:
    def run(_inputs: object) -> None:
        raise ExecutionFailed("CUDA failure 2: out of memory")

    with pytest.raises(ExecutionFailed, match="out of memory"):
        EndsWithGpu("main", an_engine(run)).run({})


@pytest.mark.parametrize(
    ("rung", "wrap"), [("onnxruntime:cpu", None), ("onnxruntime:cuda", EndsWithGpu)]
)
def test_only_on_a_gpu_engines_end_their_process(
    rung: str, wrap: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[object] = []

    def open_model(
        _folder: Path, _manifest: object, on: str, given: object, _built: object
    ) -> None:
        opened.extend([on, given])
        raise LookupError("it is enough")

    monkeypatch.setattr("superbrain.serve.served_bundle.stored_manifest", lambda *_: None)
    monkeypatch.setattr(Model, "open", open_model)
    order: Any = SimpleNamespace(
        bundle_path=str(tmp_path), manifest_sha256="", rung=rung, engines=()
    )
    with pytest.raises(LookupError):
        ServedBundle.open(order)
    assert opened == [rung, wrap]
