"""What makes two engines the same: every part of the key counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from superbrain.domain.engine import (
    BuilderPolicy,
    EngineHost,
    EngineKey,
    Profile,
    ProfileError,
    engine_key,
    graph_digest,
    graph_profiles,
    timing_key,
    with_builder_memory,
)
from superbrain.domain.manifest import FileEntry, Graph, Manifest, Range
from tests.support.graphs import ADD, DOUBLE, tensor
from tests.support.models import border, write_model

HOST = EngineHost("tensorrt", "10.16.1.11", "NVIDIA L4", "8.9", "580.65.06", "13.0")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_model(
        tmp_path,
        graphs={"add": ADD, "double": DOUBLE},
        inputs=[border("x", "FP32", -1)],
        outputs=[border("y", "FP32", -1)],
        files={"graphs/add.weights": "1234", "assets/labels.txt": "a"},
    )


def key(manifest: Manifest, **changes: Any) -> EngineKey:  # noqa: ANN401 - fields of EngineHost
    flags = changes.pop("flags", ["TF32"])
    rung, workspace = changes.pop("rung", "tensorrt:fp16"), changes.pop("workspace", 1024)
    host = msgspec.structs.replace(HOST, **changes)
    return engine_key(manifest, manifest.graphs["add"], rung, host, flags, workspace)


def with_file(manifest: Manifest, path: str) -> Manifest:
    """Give a manifest in which one file has another content."""
    other = [
        FileEntry(one.path, one.size_bytes, "0" * 64) if one.path == path else one
        for one in manifest.files
    ]
    return msgspec.structs.replace(manifest, files=other)


def with_bounds(manifest: Manifest, bounds: Range) -> Manifest:
    graph = msgspec.structs.replace(manifest.graphs["add"], dynamic={"N": bounds})
    return msgspec.structs.replace(manifest, graphs={**manifest.graphs, "add": graph})


def test_the_same_things_have_the_same_key(manifest: Manifest) -> None:
    assert key(manifest) == key(manifest)
    assert key(manifest).digest == key(manifest).digest
    assert len(key(manifest).digest) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime": "tensorrt-rtx"},
        {"version": "10.16.1.12"},
        {"gpu": "NVIDIA L40"},
        {"compute_capability": "9.0"},
        {"rung": "tensorrt:fp32"},
        {"flags": ["FP16", "TF32"]},
        {"workspace": 2048},
    ],
)
def test_every_part_of_the_key_makes_another_engine(
    manifest: Manifest, changes: dict[str, Any]
) -> None:
    assert key(manifest, **changes).digest != key(manifest).digest


@pytest.mark.parametrize("bounds", [Range(2, 2, 4), Range(1, 3, 4), Range(1, 2, 8)])
def test_so_does_each_end_of_a_profile(manifest: Manifest, bounds: Range) -> None:
    assert key(with_bounds(manifest, bounds)).digest != key(manifest).digest


def test_so_does_a_size_that_the_manifest_fixes(manifest: Manifest) -> None:
    """The file may leave it open, and then the same file has several engines."""
    graph = manifest.graphs["add"]

    def of(size: int) -> str:
        inputs = [tensor(one.name, one.datatype, size, 3) for one in graph.inputs]
        fixed = msgspec.structs.replace(graph, inputs=inputs)
        graphs = {**manifest.graphs, "add": fixed}
        return key(msgspec.structs.replace(manifest, graphs=graphs)).digest

    assert of(1) == of(1)
    assert of(1) != of(2)


@pytest.mark.parametrize("path", ["graphs/add.onnx", "graphs/add.weights"])
def test_so_do_the_graph_and_its_weights(manifest: Manifest, path: str) -> None:
    assert key(with_file(manifest, path)).digest != key(manifest).digest


@pytest.mark.parametrize("path", ["graphs/double.onnx", "assets/labels.txt"])
def test_what_the_graph_cannot_read_does_not(manifest: Manifest, path: str) -> None:
    assert key(with_file(manifest, path)).digest == key(manifest).digest


@pytest.mark.parametrize("changes", [{"driver": "590.1"}, {"cuda": "13.1"}])
def test_driver_and_cuda_are_no_part_of_it(manifest: Manifest, changes: dict[str, str]) -> None:
    """They are recorded, and every start proves again."""
    assert key(manifest, **changes).digest == key(manifest).digest


def test_the_order_of_flags_does_not_matter(manifest: Manifest) -> None:
    assert key(manifest, flags=["FP16", "TF32"]) == key(manifest, flags=["TF32", "FP16"])


def test_where_a_graph_lies_does_not_matter_but_its_weights_have_names(manifest: Manifest) -> None:
    """An ONNX file names its weights relative to itself."""
    moved = [
        FileEntry(one.path.replace("graphs/", "graphs/deeper/"), one.size_bytes, one.sha256)
        for one in manifest.files
    ]
    graphs = {
        name: msgspec.structs.replace(one, path=one.path.replace("graphs/", "graphs/deeper/"))
        for name, one in manifest.graphs.items()
    }
    there = msgspec.structs.replace(manifest, files=moved, graphs=graphs)
    file = manifest.graphs["add"].path
    assert graph_digest(there, there.graphs["add"].path) == graph_digest(manifest, file)


def test_a_rung_of_another_precision_has_the_digest_of_its_own_file(manifest: Manifest) -> None:
    fp16 = FileEntry("graphs/add.fp16.onnx", 3, "ab" * 32)
    graph = msgspec.structs.replace(manifest.graphs["add"], precisions={"fp16": fp16.path})
    more = msgspec.structs.replace(
        manifest, files=[*manifest.files, fp16], graphs={**manifest.graphs, "add": graph}
    )
    assert graph_digest(more, graph.path) == graph_digest(manifest, graph.path)
    assert graph_digest(more, fp16.path) != graph_digest(more, graph.path)
    fp32_key, fp16_key = key(more, rung="tensorrt:fp32"), key(more, rung="tensorrt:fp16")
    assert fp32_key.graph != fp16_key.graph


def test_profiles_are_made_of_the_bounds_and_of_what_the_manifest_fixes() -> None:
    graph = Graph(
        "graphs/g.onnx",
        [tensor("x", "FP32", "N", 3, "W"), tensor("fixed", "FP32", 2)],
        [],
        {"N": Range(1, 2, 4), "W": Range(8, 16, 32)},
    )
    assert graph_profiles(graph) == [
        Profile("x", [1, 3, 8], [2, 3, 16], [4, 3, 32]),
        Profile("fixed", [2], [2], [2]),
    ]


def test_an_open_size_without_bounds_is_named() -> None:
    graph = Graph("graphs/g.onnx", [tensor("x", "FP32", "N")], [], {})
    with pytest.raises(ProfileError, match="input 'x': expected min, opt and max of 'N'"):
        graph_profiles(graph)


def test_what_was_measured_belongs_to_one_version_on_one_gpu() -> None:
    assert timing_key(HOST) == timing_key(msgspec.structs.replace(HOST, driver="1", cuda="2"))
    others = [
        msgspec.structs.replace(HOST, **{part: "other"})
        for part in ("runtime", "version", "gpu", "compute_capability")
    ]
    assert len({timing_key(host).digest for host in (HOST, *others)}) == 5


def test_a_builder_may_use_half_of_the_host_unless_told_otherwise() -> None:
    assert with_builder_memory(BuilderPolicy(), 8 << 30).memory_mib == 4096
    assert with_builder_memory(BuilderPolicy(memory_mib=100), 8 << 30).memory_mib == 100
