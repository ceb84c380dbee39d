"""ONNX files themselves: lifted, checked, simplified, and still answering as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conversions.author import Author
from tests.conversions.makers.talk import keep


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An old graph (opset 9) with its weights in another file, and its own answers."""
    place = tmp_path / "onnx"
    place.mkdir()
    weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("MatMul", ["same", "weights"], ["product"]),
            helper.make_node("Softmax", ["product"], ["y"], axis=1),
        ],
        "old",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    onnx.save(
        model,
        place / "old.onnx",
        save_as_external_data=True,
        location="old.weights",
        size_threshold=0,
    )
    session = onnxruntime.InferenceSession(str(place / "old.onnx"))
    for number, rows in enumerate((1, 5, 16)):
        x = np.random.default_rng(number).standard_normal((rows, 4)).astype(np.float32)
        keep(place, number, {"x": x}, {"y": session.run(["y"], {"x": x})[0]})
    return place


def test_an_old_graph_with_weights_beside_it_is_lifted_and_answers_as_before(
    author: Author, made: Path
) -> None:
    folder = author.converted("old-graph", "old.onnx", "--input", "x=float32[batch,4]", where=made)
    model = onnx.load(folder / "graphs/model.onnx")
    assert model.opset_import[0].version >= 13
    assert [node.op_type for node in model.graph.node].count("Identity") == 0
    author.serve(folder)
    author.assert_answers(folder, made)
