"""External data is found wherever an ONNX file may name it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from superbrain.engines.onnx_files import (
    check_external_files,
    external_files,
    last_operator,
    rows_looked_up,
)
from superbrain.engines.port import EngineError, GraphMismatch
from tests.support.graphs import (
    ADD,
    TinyGraph,
    outside,
    save_graph,
    save_with_weights,
    tensor,
)
from tests.support.template_models import save_text_embedder


def save(path: Path, graph: onnx.GraphProto) -> Path:
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_a_graph_with_its_weights_inside_needs_no_file(tmp_path: Path) -> None:
    assert external_files(save_graph(tmp_path / "add.onnx", ADD)) == []


def test_weights_outside_are_named_once(tmp_path: Path) -> None:
    path = save_with_weights(tmp_path / "x.onnx", "w.bin", "w.bin", "more/v.bin")
    assert external_files(path) == ["more/v.bin", "w.bin"]


def test_weights_of_a_constant_within_a_branch_are_found(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=outside("c", "deep.bin"))
    branch = helper.make_graph([constant], "branch", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    path = save(tmp_path / "x.onnx", helper.make_graph([node], "g", [], []))
    assert external_files(path) == ["deep.bin"]


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x3a\xff\x7f", b"hello world"])
def test_a_file_that_is_no_graph_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(EngineError, match=r"x\.onnx: expected an ONNX file"):
        external_files(tmp_path / "x.onnx")


def test_a_field_that_libraries_read_as_another_one_is_a_typed_error(tmp_path: Path) -> None:
    """They keep the lower 32 bits of a field's tag: here those of the graph, at a length."""
    path = save_with_weights(tmp_path / "x.onnx", "w.bin")
    content = path.read_bytes()
    graph = content.index(b"\x3a")
    long_tag = b"\xba\x80\x80\x80\x10"
    path.write_bytes(content[:graph] + long_tag + content[graph + 1 :])
    with pytest.raises(EngineError, match=r"x\.onnx: expected an ONNX file"):
        external_files(path)


FILES = frozenset({"graphs/x.onnx", "graphs/w.bin", "graphs/more/v.bin", "assets/labels.txt"})


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "more/v.bin"])
def test_weights_among_the_bundles_files_are_accepted(tmp_path: Path, location: str) -> None:
    save_with_weights(tmp_path / "graphs/x.onnx", location)
    check_external_files(tmp_path, "graphs/x.onnx", FILES)


@pytest.mark.parametrize(
    "location",
    [
        "other.bin",  # not in the manifest
        "../w.bin",
        "../assets/labels.txt",  # in the manifest, but not below the graph's folder
        "more/../w.bin",
        "/etc/hostname",
        "*/_ORT_MEM_ADDR_/*",  # how ONNX Runtime writes an address in its own memory
        "",
    ],
)
def test_weights_elsewhere_are_the_bundles_fault(tmp_path: Path, location: str) -> None:
    save_with_weights(tmp_path / "graphs/x.onnx", "w.bin", location)
    with pytest.raises(GraphMismatch, match=r"files of the bundle below graphs/") as caught:
        check_external_files(tmp_path, "graphs/x.onnx", FILES)
    assert caught.value.message.endswith(f"found that it names {location!r}")
    assert caught.value.bundle_at_fault


SOFTMAX = TinyGraph(
    [
        ("Softmax", ["x"], ["p"]),
        ("Identity", ["p"], ["q"]),
        ("Flatten", ["q"], ["y"]),
        ("Add", ["x", "x"], ["z"]),
    ],
    [tensor("x", "FP32", 1, 3)],
    [tensor("y", "FP32", 1, 3), tensor("z", "FP32", 1, 3)],
)


@pytest.mark.parametrize(("output", "operator"), [("y", "Softmax"), ("z", "Add"), ("w", "")])
def test_the_last_operator_is_behind_those_that_only_change_the_form(
    tmp_path: Path, output: str, operator: str
) -> None:
    assert last_operator(save_graph(tmp_path / "softmax.onnx", SOFTMAX), output) == operator


def test_the_operators_of_a_file_that_is_no_graph_are_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(EngineError, match="expected an ONNX file"):
        last_operator(path, "y")


def test_a_table_tells_how_many_rows_may_be_looked_up(tmp_path: Path) -> None:
    path = save_text_embedder(tmp_path / "texts.onnx")
    assert rows_looked_up(path, "input_ids") == 20
    assert rows_looked_up(path, "attention_mask") == 0
    assert rows_looked_up(save_graph(tmp_path / "add.onnx", ADD), "a") == 0
