"""Real engines, built by our builder process with TensorRT for RTX, which needs no GPU for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from superbrain.domain.ctl_build import Build, BuildProgress, Built, Surveyed
from tests.support.engines import BuilderProcess, convolutions, needs_rtx, unknown_operator
from tests.support.graphs import tensor
from tests.support.processes import OrderFailed

pytestmark = [pytest.mark.integration, needs_rtx]

ENGINE_BYTES = 100_000
LAYERS = 40
SLOW_LAYERS = 150


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BuilderProcess, Surveyed]]:
    """One builder for all that is asked of `tensorrt-rtx:fp32`, and what it has found."""
    folder = tmp_path_factory.mktemp("builder")
    with BuilderProcess(folder, convolutions(layers=LAYERS)) as builder:
        yield builder, builder.survey("tensorrt-rtx:fp32")


Shared = tuple[BuilderProcess, Surveyed]


def test_dynamic_shapes_in_fp32_again_and_again(surveyed: Shared) -> None:
    builder, _ = surveyed
    for _ in range(2):
        builder.engine.unlink(missing_ok=True)
        builder.order(builder.build_order(), Built)
        assert builder.engine.stat().st_size > ENGINE_BYTES
        assert [path.name for path in builder.scratch.iterdir()] == ["main.engine"]


def test_progress_is_told_and_never_goes_back(tmp_path: Path) -> None:
    told: list[BuildProgress] = []
    layers = SLOW_LAYERS
    while not told:  # until it takes long enough to be told of
        with BuilderProcess(tmp_path / str(layers), convolutions(layers=layers)) as builder:
            builder.survey("tensorrt-rtx:fp32")
            builder.order(builder.build_order(), Built)
            told = builder.progress
        layers *= 2
    assert [one.percent for one in told] == sorted(one.percent for one in told)
    assert [one.elapsed_s for one in told] == sorted(one.elapsed_s for one in told)
    assert all(0 <= one.percent < 100 and one.phase for one in told)


def test_what_it_found_and_how_it_is_held(surveyed: Shared) -> None:
    _, found = surveyed
    assert found.host.runtime == "tensorrt-rtx"
    assert found.host.version.startswith("1.")
    assert found.flags == ["STRONGLY_TYPED"]
    assert not found.keeps_timing
    assert found.sandbox.level != "none"
    assert found.sandbox.gpu


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has an NVIDIA GPU")
def test_without_a_gpu_it_says_so(surveyed: Shared) -> None:
    _, found = surveyed
    assert "libcuda.so.1" in found.unavailable
    assert "nvidia-smi" in found.mend


def test_a_build_that_takes_too_long_is_stopped_and_the_next_one_goes_well(
    surveyed: Shared,
) -> None:
    builder, _ = surveyed
    builder.engine.unlink(missing_ok=True)
    with pytest.raises(OrderFailed, match="expected an engine within 0 s") as caught:
        builder.order(builder.build_order(time_limit_s=0.0), Built)
    assert caught.value.failed.code == "BuildTimedOut"
    assert "builder.time_limit_s" in caught.value.failed.mend
    assert not builder.engine.exists()
    builder.order(builder.build_order(), Built)


def test_fixed_shapes_are_bounds_that_are_equal(tmp_path: Path) -> None:
    with BuilderProcess(tmp_path, convolutions(dynamic=False)) as builder:
        assert len(builder.build("tensorrt-rtx:tf32")) > ENGINE_BYTES


def test_sizes_that_the_file_leaves_open_may_be_fixed_by_the_manifest(tmp_path: Path) -> None:
    graph = convolutions()
    fixed = dataclasses.replace(
        graph,
        inputs=[tensor("x", "FP32", 1, 3, 32, 32)],
        outputs=[tensor("y", "FP32", 1, 16, 1, 1)],
        dynamic={},
    )
    with BuilderProcess(tmp_path, fixed) as builder:
        assert len(builder.build("tensorrt-rtx:fp32")) > ENGINE_BYTES


def test_a_graph_of_fp16(tmp_path: Path) -> None:
    with BuilderProcess(tmp_path, convolutions("fp16"), runs=False) as builder:
        assert len(builder.build("tensorrt-rtx:fp16")) > ENGINE_BYTES


def test_a_graph_that_quantises_by_qdq(tmp_path: Path) -> None:
    with BuilderProcess(tmp_path, convolutions("qdq")) as builder:
        assert len(builder.build("tensorrt-rtx:int8")) > ENGINE_BYTES


# --- what goes wrong ------------------------------------------------------------------------------


def failure(builder: BuilderProcess, rung: str = "tensorrt-rtx:fp32") -> OrderFailed:
    with pytest.raises(OrderFailed) as caught:
        builder.build(rung)
    return caught.value


def test_an_operator_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with BuilderProcess(tmp_path, unknown_operator(), runs=False) as builder:
        failed = failure(builder).failed
        assert failed.code == "BuildFailed"
        assert "Levitate" in failed.message
        assert not failed.bundle_at_fault


def test_a_graph_that_is_not_what_the_manifest_says(tmp_path: Path) -> None:
    other = convolutions("fp16").model.SerializeToString()
    with BuilderProcess(tmp_path, convolutions(), rewrite=other) as builder:
        failed = failure(builder).failed
        assert (failed.code, failed.bundle_at_fault) == ("GraphMismatch", True)
        assert "expected FP32[n, 3, h, w]" in failed.message


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_rung_is_never_something_else_than_it_says(tmp_path: Path, precision: str) -> None:
    with BuilderProcess(tmp_path, convolutions()) as builder:
        failed = failure(builder, f"tensorrt-rtx:{precision}").failed
        assert failed.code == "BuildFailed"
        assert f"expected {precision} tensors in the file" in failed.message


def test_build_before_survey_is_refused(tmp_path: Path) -> None:
    with (
        BuilderProcess(tmp_path, convolutions()) as builder,
        pytest.raises(OrderFailed, match="expected Survey before Build"),
    ):
        builder.order(Build("main", [], 64, 1.0), Built)


def test_the_end_of_the_channel_ends_a_build(tmp_path: Path) -> None:
    with BuilderProcess(tmp_path, convolutions(layers=SLOW_LAYERS)) as builder:
        builder.survey("tensorrt-rtx:fp32")
        builder.say(builder.build_order())
        builder.hear(BuildProgress)
        builder.channel.close()
        assert builder.process.wait(60) == 0
        assert not builder.engine.exists()
