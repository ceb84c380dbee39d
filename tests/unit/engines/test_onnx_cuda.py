"""ONNX Runtime on CUDA, as far as a host without a GPU can tell: what is believed, what is set."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnxruntime
import pytest

from superbrain.domain.manifest import Graph
from superbrain.engines.onnx_cuda import CUDA_PROVIDER, cuda_options, require_cuda
from superbrain.engines.onnx_session import CPU_PROVIDER
from superbrain.engines.onnxruntime import OnnxRuntime
from superbrain.engines.port import NoDevice, NotInstalled
from superbrain.engines.tiny_graph import LENGTH

GRAPH = Graph("graphs/a.onnx", [], [])


class GpuBuild:
    """The GPU build as it is on a host whose GPU is missing, broken or good."""

    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, *, used: str = CPU_PROVIDER, told: str = "", fails: str = "") -> None:
        self._used = used
        self._told = told
        self._fails = fails
        self.asked: list[Any] = []

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", CUDA_PROVIDER, CPU_PROVIDER]

    def preload_dlls(self) -> None:
        if self._told:
            print(self._told)

    def InferenceSession(self, model: bytes, options: Any, providers: list[str]) -> Any:  # noqa: ANN401, N802
        if self._fails:
            raise RuntimeError(self._fails)
        self.asked = providers
        real = onnxruntime.InferenceSession(model, options, providers=[CPU_PROVIDER])
        assert real.run(None, {"x": np.ones(LENGTH, np.float32)})[0].tolist() == [2.0] * LENGTH
        return type("Session", (), {"get_providers": lambda _self: [self._used]})()


def test_a_build_without_cuda_says_which_one_it_is() -> None:
    with pytest.raises(NotInstalled, match=f"expected ONNX Runtime with {CUDA_PROVIDER}, found"):
        require_cuda(onnxruntime)


@pytest.mark.parametrize(
    ("library", "found"),
    [
        (GpuBuild(), f"found that {CPU_PROVIDER} ran$"),
        (GpuBuild(told="Failed to load libcudnn.so.9: no\nsee"), "ran; Failed to load libcudnn"),
        (GpuBuild(fails="CUDA failure 35: driver too old"), "CUDA failure 35: driver too old"),
    ],
    ids=["another provider", "a library is missing", "it raises"],
)
def test_a_gpu_that_does_not_run_a_graph_is_none(
    library: GpuBuild, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NoDevice) as caught:
        require_cuda(library)
    assert re.search(found, caught.value.message)
    assert "nvidia-smi" in caught.value.mend
    assert capsys.readouterr().out == ""


def test_a_gpu_that_runs_a_graph_is_believed() -> None:
    library = GpuBuild(used=CUDA_PROVIDER)
    require_cuda(library)
    assert library.asked == [CUDA_PROVIDER]


def test_a_rung_on_cuda_is_unavailable_here_in_one_sentence() -> None:
    runtime = OnnxRuntime()
    for rung in ("onnxruntime:cuda", "onnxruntime:cuda-fp16"):
        if why := runtime.unavailable(rung):
            assert why.startswith("expected ")
            assert "\n" not in why


def test_only_the_tf32_rung_rounds_to_tf32() -> None:
    assert cuda_options(GRAPH, tf32=False)["use_tf32"] == "0"
    assert cuda_options(GRAPH, tf32=True)["use_tf32"] == "1"


def test_the_arena_is_limited_where_the_manifest_says_so() -> None:
    assert "gpu_mem_limit" not in cuda_options(GRAPH, tf32=False)
    limited = Graph("graphs/a.onnx", [], [], gpu_memory_mb=512)
    assert cuda_options(limited, tf32=False)["gpu_mem_limit"] == str(512 << 20)
