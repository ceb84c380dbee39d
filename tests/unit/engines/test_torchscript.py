"""TorchScript beyond the contract: files without a declaration, and code that does as it likes.

What needs PyTorch is run by `scripts/conversions`, with a Python that has it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from superbrain.domain.manifest import Graph
from superbrain.engines.port import ExecutionFailed, GraphMismatch
from superbrain.engines.torchscript import TorchScript
from tests.support.graphs import ADD, DOUBLE, TinyGraph, declare, tensor
from tests.support.torch_graphs import save_script, save_source

RUNG = "torchscript:cpu"
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="PyTorch is not in this environment; scripts/conversions runs this with one that has it",
)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    sentence = TorchScript().unavailable(RUNG)
    assert "expected the package torch, found none that works" in sentence
    assert "superbrain[cpu,torch]" in sentence


def test_a_build_without_cuda_is_not_asked_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    build = SimpleNamespace(
        jit=SimpleNamespace(load=None), version=SimpleNamespace(cuda=None), __version__="2.13.0+cpu"
    )
    monkeypatch.setitem(sys.modules, "torch", build)
    assert TorchScript().unavailable(RUNG) == ""
    sentence = TorchScript().unavailable("torchscript:cuda")
    assert "expected PyTorch with CUDA, found 2.13.0+cpu, which is built without" in sentence


@needs_torch
def test_without_a_declaration_inputs_are_called_as_the_arguments(tmp_path: Path) -> None:
    path = save_script(tmp_path / "add.pt", ADD, declared=False)
    engine = TorchScript().load(RUNG, path, declare(ADD))
    rows = np.ones((2, 3), np.float32)
    assert engine.run({"b": rows, "a": rows})["sum"].tolist() == (rows * 2).tolist()
    other = Graph("graphs/add.pt", [tensor("x", "FP32", 3)], ADD.outputs)
    with pytest.raises(
        GraphMismatch, match=r"called as the arguments of forward \(a, b\), found x"
    ):
        TorchScript().load(RUNG, path, other)


X = TinyGraph([], [tensor("x", "FP32", "N")], [tensor("y", "FP32", "N"), tensor("n", "INT64")])


@needs_torch
def test_outputs_without_names_are_taken_in_their_order(tmp_path: Path) -> None:
    source = (
        "def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:\n"
        "    return x + 1, torch.tensor(x.size(0))\n"
    )
    engine = TorchScript().load(RUNG, save_source(tmp_path / "pair.pt", source), declare(X))
    found = engine.run({"x": np.zeros(3, np.float32)})
    assert (found["y"].tolist(), found["n"].item()) == ([1.0, 1.0, 1.0], 3)


@needs_torch
def test_code_that_changes_its_argument_leaves_the_callers_array_alone(tmp_path: Path) -> None:
    source = "def forward(self, x: Tensor) -> Tensor:\n    return x.mul_(2)\n"
    engine = TorchScript().load(RUNG, save_source(tmp_path / "t.pt", source), declare(DOUBLE))
    x = np.ones(2, np.float32)
    assert engine.run({"x": x})["y"].tolist() == [2.0, 2.0]
    assert x.tolist() == [1.0, 1.0]


WRONG_ANSWERS = {
    "another datatype": ("x.double()", "output 'y': expected FP32"),
    "another rank": ("x.unsqueeze(0)", "output 'y': expected FP32"),
    "what numpy cannot hold": (
        "x.to(torch.bfloat16)",
        "expected a tensor that numpy holds, found torch",
    ),
}


@needs_torch
@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_an_answer_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path, name: str) -> None:
    expression, reason = WRONG_ANSWERS[name]
    source = f"def forward(self, x: Tensor) -> Tensor:\n    return {expression}\n"
    engine = TorchScript().load(RUNG, save_source(tmp_path / "t.pt", source), declare(DOUBLE))
    with pytest.raises(ExecutionFailed, match=reason):
        engine.run({"x": np.ones(2, np.float32)})


@needs_torch
def test_a_module_that_gives_more_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    source = "def forward(self, x: Tensor) -> List[Tensor]:\n    return [x, x]\n"
    engine = TorchScript().load(RUNG, save_source(tmp_path / "t.pt", source), declare(DOUBLE))
    with pytest.raises(ExecutionFailed, match=r"expected 1 outputs \(y\), found .* gives 2"):
        engine.run({"x": np.ones(2, np.float32)})


@needs_torch
def test_what_changes_with_the_shapes_seen_before_is_off(tmp_path: Path) -> None:
    source = "def forward(self, x: Tensor) -> Tensor:\n    return torch.sigmoid(x * 3) + x\n"
    engine = TorchScript().load(RUNG, save_source(tmp_path / "t.pt", source), declare(DOUBLE))
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    first = engine.run({"x": x})["y"]
    for size in (1, 16, 3, 5):
        engine.run({"x": np.ones(size, np.float32)})
    assert np.array_equal(engine.run({"x": x})["y"], first)
