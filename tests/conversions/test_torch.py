"""PyTorch in every form: from a checkpoint to a daemon that answers as it does."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from tests.conversions.author import Author, make

IMAGE = (
    *("--input", "image=float32[batch,3,height,24]", "--values", "image=0:1"),
    *("--dynamic", "batch=1:3:16", "--dynamic", "height=8:24:48"),
)
FORMS = {
    "checkpoint": ("nets:make_net", "--weights", "net.ckpt", *IMAGE),
    "safetensors": ("nets:make_net", "--weights", "net.safetensors", *IMAGE),
    "exported": ("net.pt2", "--values", "image=0:1"),
    "script": ("script.pt", *IMAGE),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("torch", tmp_path_factory.mktemp("torch"))


@pytest.mark.parametrize("form", FORMS)
def test_the_daemon_answers_as_the_torch_model_does(author: Author, made: Path, form: str) -> None:
    folder = author.converted(f"torch-{form}", *FORMS[form], where=made)
    author.serve(folder)
    author.assert_answers(folder, made)


def test_texts_of_any_length_are_answered_as_by_the_transformer(author: Author, made: Path) -> None:
    folder = author.converted(
        "torch-tokens",
        "nets:make_tokens",
        *("--input", "ids=int64[batch,length]", "--input", "mask=int64[batch,length]"),
        *("--values", "ids=0:99", "--values", "mask=1:1", "--outputs", "vector"),
        *("--dynamic", "batch=1:2:4", "--dynamic", "length=1:9:32"),
        where=made,
    )
    author.serve(folder)
    author.assert_answers(folder, made / "tokens")


def test_a_transposed_layout_is_refused_and_nothing_is_written(author: Author, made: Path) -> None:
    right = author.converted("torch-right", *FORMS["exported"], where=made)
    wrong = transposed(right / "graphs/model.onnx", author.folder / "wrong.onnx")
    target = author.folder / "torch-wrong"
    words = ("--against", "net.pt2", "--values", "image=0:1", "--output", str(target))
    code, said = author.convert(str(wrong), *words, where=made)
    assert (code, said["error"]["code"], target.exists()) == (4, "PARITY", False)


def test_a_model_that_never_answers_twice_the_same_is_refused(author: Author, made: Path) -> None:
    code, said = author.convert("nets:make_restless", "--input", "x=float32[batch,4]", where=made)
    assert (code, said["error"]["code"]) == (4, "PARITY_REPEAT")


def test_weights_of_another_module_are_named_as_such(author: Author, made: Path) -> None:
    words = ("--weights", "net.pth", "--input", "ids=int64[batch,4]", "--values", "ids=0:9")
    code, said = author.convert("nets:make_tokens", *words, where=made)
    assert (code, said["error"]["code"]) == (1, "FRAMEWORK_LOAD")
    assert "embedding.weight" in said["error"]["message"]


def transposed(path: Path, target: Path) -> Path:
    """Turn the picture's channels around before the first layer: same shapes, another layout."""
    model = onnx.load(path)
    graph = model.graph
    image = graph.input[0].name
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = "turned" if name == image else name
    order = helper.make_tensor("order", onnx.TensorProto.INT64, [3], [2, 1, 0])
    graph.initializer.append(order)
    graph.node.insert(0, helper.make_node("Gather", [image, "order"], ["turned"], axis=1))
    onnx.save(model, target)
    return target
