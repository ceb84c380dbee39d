"""What an exported ONNX file goes through: names of its own, sizes that were seen, a simplifier."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from superbrain.convert.frameworks.onnx_file import declare, finish, rename, sizes_of
from superbrain.convert.frameworks.talk import Refused

FLOAT = TensorProto.FLOAT


def model(nodes: list[onnx.NodeProto], outputs: list[str], *, opset: int = 17) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("in", FLOAT, ["N", 2])],
            [helper.make_tensor_value_info(name, FLOAT, ["N", 2]) for name in outputs],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )


def test_an_inner_value_makes_way_for_an_output_of_its_name() -> None:
    made = model(
        [helper.make_node("Relu", ["in"], ["y"]), helper.make_node("Neg", ["y"], ["out"])], ["out"]
    )
    rename(made.graph, ["x"], ["y"])
    assert [one.name for one in made.graph.output] == ["y"]
    assert [list(node.output) for node in made.graph.node] == [["y__inner"], ["y"]]
    onnx.checker.check_model(made, full_check=True)


def test_names_may_be_exchanged() -> None:
    made = model(
        [helper.make_node("Relu", ["in"], ["a"]), helper.make_node("Neg", ["in"], ["b"])],
        ["a", "b"],
    )
    rename(made.graph, ["in"], ["b", "a"])
    assert [list(node.output) for node in made.graph.node] == [["b"], ["a"]]


def test_an_output_that_is_an_input_or_given_twice_gets_a_value_of_its_own() -> None:
    made = model([helper.make_node("Relu", ["in"], ["a"])], ["in", "a", "a"])
    rename(made.graph, ["x"], ["same", "first", "second"])
    onnx.checker.check_model(made, full_check=True)
    assert [one.name for one in made.graph.output] == ["same", "first", "second"]


def test_names_inside_of_branches_follow() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["in"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, ["N", 2])],
    )
    condition = helper.make_node("Cast", ["flag"], ["if"], to=TensorProto.BOOL)
    made = model(
        [
            helper.make_node("ReduceSum", ["in"], ["flag"], keepdims=0),
            condition,
            helper.make_node("If", ["if"], ["out"], then_branch=branch, else_branch=branch),
        ],
        ["out"],
    )
    rename(made.graph, ["x"], ["y"])
    inner = made.graph.node[2].attribute[0].g
    assert inner.node[0].input[0] == "x"


def test_another_number_of_outputs_is_refused() -> None:
    made = model([helper.make_node("Relu", ["in"], ["a"])], ["a"])
    with pytest.raises(Refused, match=r"expected 2 outputs of the graph \(y, z\), found 1"):
        rename(made.graph, ["x"], ["y", "z"])


def test_two_values_of_one_name_are_refused(tmp_path: Path) -> None:
    clash = [helper.make_node("Relu", ["in"], ["a"]), helper.make_node("Neg", ["in"], ["a"])]
    onnx.save(model(clash, ["a"]), tmp_path / "clash.onnx")
    with pytest.raises(Refused) as refused:
        finish(
            str(tmp_path / "clash.onnx"),
            str(tmp_path / "out.onnx"),
            inputs=["x"],
            outputs=["y"],
            simplify=False,
        )
    assert refused.value.code == "ONNX_NAME_CLASH"
    assert not (tmp_path / "out.onnx").exists()


def test_an_old_opset_is_lifted_and_the_source_left_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "old.onnx", tmp_path / "new.onnx"
    onnx.save(model([helper.make_node("Softmax", ["in"], ["a"])], ["a"], opset=9), source)
    before = source.read_bytes()
    notes = finish(str(source), str(target), inputs=["x"], outputs=["y"], simplify=False)
    assert onnx.load(target).opset_import[0].version == 13
    assert notes == ["opset 9 was lifted to 13"]
    assert source.read_bytes() == before


def test_sizes_that_were_seen_replace_a_wrong_declaration(tmp_path: Path) -> None:
    made = model([helper.make_node("Relu", ["in"], ["a"])], ["a"])
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("a", FLOAT, [1]))
    path = tmp_path / "m.onnx"
    onnx.save(made, path)
    notes = declare(str(path), {"in": ["batch", 2], "a": ["batch", 2]})
    graph = onnx.load(path).graph
    assert sizes_of(graph.output[0]) == ["batch", 2]
    assert notes == ["a: the file declared [1], seen was ['batch', 2]"]
