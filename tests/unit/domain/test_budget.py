"""What a candidate needs, and the refusal with figures where it does not fit."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from superbrain.domain.budget import (
    CUDA_CONTEXT_BYTES,
    Measured,
    Need,
    Room,
    predict,
    refusal,
    weights_bytes,
)
from superbrain.domain.manifest import FileEntry, Manifest, Serving, Targets
from superbrain.domain.manifest_json import parse_manifest
from tests.support.manifests import payload

GIB = 1 << 30
MIB = 1 << 20


def of_size(weights: int, instances: int = 1) -> Manifest:
    files = [
        FileEntry("graphs/main.onnx", weights - MIB, "a" * 64),
        FileEntry("graphs/main.data", MIB, "b" * 64),
        FileEntry("golden/one/x.npy", 7 * GIB, "c" * 64),
    ]
    valid = parse_manifest(payload())
    return msgspec.structs.replace(valid, files=files, serving=Serving(instances=instances))


def test_weights_are_all_files_of_the_graphs_and_nothing_else() -> None:
    assert weights_bytes(of_size(3 * GIB)) == 3 * GIB


@pytest.mark.parametrize(
    ("rung", "on_gpu", "engine"),
    [
        ("tensorrt:fp32", True, 4 * GIB),
        ("tensorrt:fp16", True, 2 * GIB),
        ("tensorrt-rtx:int8", True, 1 * GIB),
        ("onnxruntime:cuda", True, 4 * GIB),
        ("tensorrt:fp16", False, 4 * GIB),
    ],
)
def test_an_engine_is_as_large_as_its_weights_at_its_precision(
    rung: str, on_gpu: bool, engine: int
) -> None:
    need = predict(of_size(4 * GIB), rung, on_gpu=on_gpu)
    assert need == Need(engine, runtime_bytes=CUDA_CONTEXT_BYTES if on_gpu else 0)


def test_what_the_serving_version_was_measured_to_hold_beyond_its_weights_counts_too() -> None:
    measured = Measured(memory_bytes=3 * GIB, weights_bytes=2 * GIB)
    need = predict(of_size(4 * GIB, 2), "tensorrt:fp32", measured=measured, on_gpu=True)
    assert (need.engine_bytes, need.runtime_bytes) == (4 * GIB, 1 * GIB)
    assert need.total_bytes == 10 * GIB


def test_weights_that_are_shared_or_mapped_never_count_negative() -> None:
    measured = Measured(memory_bytes=GIB, weights_bytes=2 * GIB)
    need = predict(of_size(GIB), "tensorrt:fp32", measured=measured, on_gpu=True)
    assert need.runtime_bytes == 0


def test_in_the_hosts_memory_it_is_what_the_author_declares_if_that_is_more() -> None:
    declared = msgspec.structs.replace(of_size(GIB, 2), targets=Targets(memory_mb=6000))
    assert predict(declared, "onnxruntime:cpu", on_gpu=False).total_bytes == 6_000_000_000
    declared = msgspec.structs.replace(of_size(GIB, 2), targets=Targets(memory_mb=1))
    assert predict(declared, "onnxruntime:cpu", on_gpu=False).total_bytes == 2 * GIB


ROOM: dict[str, Any] = {
    "where": "the memory of GPU 0 (NVIDIA L4)",
    "total_bytes": 22 * GIB,
    "held_bytes": 12 * GIB,
    "held_by": "ocr 3.0.1",
}


def test_what_fits_exactly_is_let_in() -> None:
    assert refusal(Need(GIB), Room(free_bytes=GIB, **ROOM), "ocr 3.1.0 on tensorrt:fp16") is None


def test_a_refusal_says_what_is_needed_what_is_free_and_what_would_help() -> None:
    need = Need(8 * GIB, 3 * GIB, GIB, 512 * MIB)
    reason = refusal(need, Room(free_bytes=9 * GIB, **ROOM), "ocr 3.1.0 on tensorrt:fp16")
    assert reason is not None
    assert reason.code == "NOT_ENOUGH_MEMORY"
    assert reason.message == (
        "ocr 3.1.0 on tensorrt:fp16 needs at least 12.5 GiB (engine 8.0 GiB, context 3.0 GiB, "
        "workspace 1.0 GiB, runtime 512 MiB) of the memory of GPU 0 (NVIDIA L4), 9.0 GiB of "
        "22.0 GiB are free while ocr 3.0.1 serves and holds 12.0 GiB"
    )
    assert "retire ocr 3.0.1 first" in reason.mend
    assert "free 3.5 GiB" in reason.mend


def test_fewer_instances_are_the_gentlest_way() -> None:
    reason = refusal(Need(4 * GIB, instances=3), Room(free_bytes=9 * GIB, **ROOM), "ocr 3.1.0")
    assert reason is not None
    assert reason.mend.startswith("lower serving.instances to 2")
    assert "3 times engine 4.0 GiB" in reason.message


def test_what_fits_nowhere_is_not_told_to_take_the_old_ones_place() -> None:
    reason = refusal(Need(40 * GIB), Room(free_bytes=9 * GIB, **ROOM), "ocr 3.1.0")
    assert reason is not None
    assert "retire ocr" not in reason.mend
