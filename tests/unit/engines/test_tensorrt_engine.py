"""What a worker refuses of a built engine before, and after, a library has seen it."""

from __future__ import annotations

import pytest

from superbrain.domain.engine import EngineFile
from superbrain.engines.graph_check import FileTensor
from superbrain.engines.port import EngineRefused, GraphMismatch
from superbrain.engines.tensorrt_engine import check_borders, check_host
from tests.support.graphs import ADD, declare

A, B, SUM = (FileTensor(name, "FP32", (None, 3)) for name in ("a", "b", "sum"))


def test_an_engine_for_this_host_is_loaded() -> None:
    check_host(EngineFile("add", "", "", "NVIDIA L4", "10.16"), "NVIDIA L4", "10.16")


@pytest.mark.parametrize(("gpu", "version"), [("NVIDIA L40", "10.16"), ("NVIDIA L4", "11.4")])
def test_one_for_another_gpu_or_version_is_never(gpu: str, version: str) -> None:
    with pytest.raises(EngineRefused, match=f"found one for {gpu} and version {version}"):
        check_host(EngineFile("add", "", "", gpu, version), "NVIDIA L4", "10.16")


def test_an_engine_of_this_graph_is_one() -> None:
    check_borders("add.onnx", declare(ADD), [A, B], [SUM])


def test_an_engine_of_another_graph_is_no_judgement_on_the_bundle() -> None:
    with pytest.raises(EngineRefused, match="the engine is not of this graph") as caught:
        check_borders("add.onnx", declare(ADD), [A], [SUM])
    assert not isinstance(caught.value, GraphMismatch)
    assert not caught.value.bundle_at_fault
