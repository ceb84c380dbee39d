"""What differs between TensorRT 10, 11 and TensorRT for RTX."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from superbrain.domain.engine import EngineFile, EngineHost
from superbrain.engines.onnx_files import metadata_of
from superbrain.engines.port import EngineError, EngineRefused, RungUnavailable
from superbrain.engines.registry import built_runtime_for, runtime_for
from superbrain.engines.tensorrt_engine import open_engine
from superbrain.engines.tensorrt_flavour import (
    RTX,
    TENSORRT,
    Flavour,
    flavour_of,
    import_library,
    lacks,
    recipe,
)
from superbrain.engines.tensorrt_survey import Survey, survey_in_child
from tests.support.graphs import ADD, declare, save_graph


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_ten_makes_half_precisions_by_flags(precision: str) -> None:
    found = recipe(TENSORRT, "10.16.1.11", precision)
    assert found.on == ("TF32", precision.upper())
    assert not found.strongly_typed


@pytest.mark.parametrize("precision", ["fp32", "tf32", "int8", "fp8"])
def test_ten_takes_the_rest_from_the_file(precision: str) -> None:
    assert recipe(TENSORRT, "10.3.0", precision).strongly_typed


@pytest.mark.parametrize(("flavour", "version"), [(TENSORRT, "11.4.0.106"), (RTX, "1.7.1.116")])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8", "fp8"])
def test_the_others_take_everything_from_the_file(
    flavour: Flavour, version: str, precision: str
) -> None:
    found = recipe(flavour, version, precision)
    assert found.strongly_typed
    assert set(found.on) <= {"TF32"}


def test_only_fp32_is_without_tf32() -> None:
    """The libraries begin with it on."""
    assert recipe(RTX, "1.7", "fp32").off == ("TF32",)
    assert recipe(RTX, "1.7", "fp32").names == ["STRONGLY_TYPED"]
    assert recipe(RTX, "1.7", "tf32").names == ["STRONGLY_TYPED", "TF32"]


@pytest.mark.parametrize(
    ("rung", "capability", "expected"),
    [
        ("tensorrt-rtx:fp32", (9, 0), "runs on GPUs of compute capability 7.5, 8.x and 12.x"),
        ("tensorrt-rtx:fp32", (7, 0), "found 7.0 (GPU)"),
        ("tensorrt:fp8", (8, 6), "fp8 needs a GPU of compute capability 8.9, found 8.6 (GPU)"),
        ("tensorrt:bf16", (7, 5), "bf16 needs a GPU of compute capability 8.0"),
    ],
)
def test_what_a_gpu_lacks_is_said(rung: str, capability: tuple[int, int], expected: str) -> None:
    assert expected in lacks(flavour_of(rung), rung.partition(":")[2], "GPU", capability)


@pytest.mark.parametrize(
    ("rung", "capability"),
    [
        ("tensorrt-rtx:fp32", (7, 5)),
        ("tensorrt-rtx:fp8", (8, 9)),
        ("tensorrt-rtx:bf16", (12, 0)),
        ("tensorrt:fp8", (9, 0)),
        ("tensorrt:int8", (8, 7)),
    ],
)
def test_a_gpu_that_can(rung: str, capability: tuple[int, int]) -> None:
    assert not lacks(flavour_of(rung), rung.partition(":")[2], "GPU", capability)


def test_a_library_that_is_not_there_is_said_with_what_installs_it() -> None:
    absent = TENSORRT._replace(modules=("no_such_library",))
    with pytest.raises(RungUnavailable, match="expected the package no_such_library") as caught:
        import_library(absent)
    assert "superbrain[tensorrt]" in caught.value.mend


# --- whether this host can ------------------------------------------------------------------------


def test_a_survey_names_the_library_before_the_gpu() -> None:
    host = EngineHost("tensorrt", "")
    assert Survey(host, no_library="no library", no_gpu="no GPU").unavailable("tensorrt:fp32") == (
        "no library"
    )
    assert Survey(host, no_gpu="no GPU").unavailable("tensorrt:fp32") == "no GPU"
    assert not Survey(host, capability=(8, 9)).unavailable("tensorrt:fp8")
    assert "fp8 needs" in Survey(host, capability=(8, 0)).unavailable("tensorrt:fp8")


def test_a_child_that_comes_to_nothing_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    survey_in_child.cache_clear()
    try:
        found = survey_in_child("tensorrt").unavailable("tensorrt:fp32")
    finally:
        survey_in_child.cache_clear()
    assert "the process that looked ended with status 1" in found


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has an NVIDIA GPU")
@pytest.mark.parametrize("rung", ["tensorrt:fp32", "tensorrt-rtx:fp32"])
def test_a_host_without_a_gpu_says_why_in_one_sentence(rung: str) -> None:
    said = runtime_for(rung).unavailable(rung)
    assert said.startswith("expected ")
    assert "\n" not in said


# --- loading what was built -----------------------------------------------------------------------


def test_only_tensorrt_needs_a_builder() -> None:
    assert built_runtime_for("onnxruntime:cpu") is None
    assert built_runtime_for("tensorrt:fp16") is not None
    assert built_runtime_for("tensorrt-rtx:fp16") is not None


def test_a_graph_alone_is_not_enough(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "add.onnx", ADD)
    with pytest.raises(RungUnavailable, match="expected an engine that a builder has made"):
        runtime_for("tensorrt:fp32").load("tensorrt:fp32", path, declare(ADD))


@pytest.mark.parametrize("content", [None, b"changed"])
def test_an_engine_of_other_bytes_is_refused_before_anything_is_loaded(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "engine"
    if content is not None:
        path.write_bytes(content)
    file = EngineFile("add", str(path), "0" * 64)
    with pytest.raises(EngineRefused):
        open_engine(RTX, "tensorrt-rtx:fp32", file, tmp_path / "add.onnx", declare(ADD))


def test_the_metadata_of_an_onnx_file(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "add.onnx", ADD)
    assert metadata_of(path) == ADD.metadata


def test_no_onnx_file_has_no_metadata(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\xff\xff nonsense")
    with pytest.raises(EngineError, match="expected an ONNX file"):
        metadata_of(tmp_path / "x.onnx")
