"""Real networks for tests about precisions: a text detector from a package, a small one made here.

>>> detector_folder(tmp_path)      # PP-OCRv4
>>> harmed_detector(tmp_path)      # with its naive fp16, which is wrong
>>> classifier_folder(tmp_path)    # convolutions that stand int8
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from superbrain.cli.main import main
from superbrain.domain.manifest import Range
from tests.support.graphs import TinyGraph, tensor

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
WEIGHTS = Path(__file__).with_name("weights.toml")
PAGES = {"lines": ["Region", "based on", "pages"], "one": ["markers"]}
WIDTH, DEPTH, CLASSES = 16, 3, 10
DETECTED = "sigmoid_0.tmp_0"
Array = np.ndarray[Any, np.dtype[Any]]

#: What the classifier takes and gives; its nodes are made by `classifier_network`.
CLASSIFIER = TinyGraph(
    [],
    [tensor("x", "FP32", "N", 3, 16, 16)],
    [tensor("y", "FP32", "N", CLASSES)],
    {"N": Range(1, 1, 4)},
)
_DETECTOR = """\
schema = 1
name = "detector"
version = "1.0.0"
sequence = 1
created = 2025-01-31T12:00:00Z
ladder = LADDER

[graphs.det]
path = "graphs/det.onnx"
inputs = [{ name = "x", datatype = "FP32", shape = [1, 3, "H", "W"] }]
outputs = [{ name = "sigmoid_0.tmp_0", datatype = "FP32", shape = [1, 1, "H", "W"] }]
dynamic = { H = { min = 32, opt = 96, max = 960 }, W = { min = 32, opt = 160, max = 960 } }

[interface]
inputs = [{ name = "x", datatype = "FP32", shape = [1, 3, -1, -1] }]
outputs = [{ name = "sigmoid_0.tmp_0", datatype = "FP32", shape = [1, 1, -1, -1] }]

[golden.tolerances]
"sigmoid_0.tmp_0" = { kind = "cosine", min = 0.99 }
"""
_CLASSIFIER = """\
schema = 1
name = "classifier"
version = "1.0.0"
sequence = 1
created = 2025-01-31T12:00:00Z
ladder = ["onnxruntime:cpu"]

[graphs.main]
path = "graphs/main.onnx"
inputs = [{ name = "x", datatype = "FP32", shape = ["N", 3, 16, 16] }]
outputs = [{ name = "y", datatype = "FP32", shape = ["N", 10] }]
dynamic = { N = { min = 1, opt = 1, max = 4 } }

[interface]
inputs = [{ name = "x", datatype = "FP32", shape = [-1, 3, 16, 16] }]
outputs = [{ name = "y", datatype = "FP32", shape = [-1, 10] }]

[golden.tolerances]
y = { kind = "cosine", min = 0.995 }
"""


def detector_folder(parent: Path, ladder: Sequence[str] = ("onnxruntime:cpu",)) -> Path:
    """Make an author's folder of the text detector, with two recorded pages.

    Skips the test when there are no weights and no network to get them.
    """
    fetch = runpy.run_path(str(BUNDLES / "fetch.py"))
    (BUNDLES / ".cache").mkdir(exist_ok=True)
    (parent / ".cache").symlink_to(BUNDLES / ".cache")
    fetcher = fetch["Fetcher"](fetch["read_plan"](WEIGHTS), parent)
    try:
        for wanted in fetcher.plan:
            fetcher.place(wanted)
    except fetch["FetchError"] as error:
        if "pip could not download" not in str(error):
            raise
        pytest.skip(f"no weights, and no network to get them: {error}")
    pages = {name: _page(words) for name, words in PAGES.items()}
    recipe = _DETECTOR.replace("LADDER", json.dumps(list(ladder)))
    return _recorded(parent / "detector", recipe, pages)


def harmed_detector(
    parent: Path, ladder: Sequence[str] = ("onnxruntime:cpu-fp16", "onnxruntime:cpu")
) -> Path:
    """Make the detector with a file in fp16 that loads, runs and is wrong; skips as it does."""
    folder = detector_folder(parent, ladder)
    words = ["--to", "fp16", "--light", "--keep"]
    assert main(["bundle", "precision", str(folder), *words]) == 1
    with (folder / "bundle.toml").open("a") as recipe:
        recipe.write('[graphs.det.precisions]\nfp16 = "graphs/det.fp16.onnx"\n')
    return folder


def classifier_folder(parent: Path) -> Path:
    """Make an author's folder of a small convolutional network, with three recorded inputs."""
    folder = parent / "classifier"
    random = np.random.default_rng(8)
    (folder / "graphs").mkdir(parents=True)
    onnx.save(classifier_network(), folder / "graphs/main.onnx")
    inputs = {f"case{n}": random.normal(0, 1, (1, 3, 16, 16)).astype(np.float32) for n in range(3)}
    return _recorded(folder, _CLASSIFIER, inputs)


def _recorded(folder: Path, recipe: str, inputs: dict[str, Array]) -> Path:
    (folder / "bundle.toml").write_text(recipe)
    for case, x in inputs.items():
        request = folder / "golden" / case / "request"
        request.mkdir(parents=True)
        np.save(request / "x.npy", x)
    assert main(["bundle", "record-golden", str(folder)]) == 0
    return folder


def _page(words: list[str]) -> Array:
    image = np.full((96, 160, 3), 255, np.uint8)
    for line, word in enumerate(words):
        place = (6, 26 + 28 * line)
        cv2.putText(image, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    pixels = (image.astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[np.newaxis])


def classifier_network() -> onnx.ModelProto:
    """Make the classifier: the same weights every time."""
    random = np.random.default_rng(7)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    name, channels = "x", 3
    for layer in range(DEPTH):
        scale = (2 / (channels * 9)) ** 0.5
        kernel = random.normal(0, scale, (WIDTH, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{layer}"))
        convolved = f"convolved{layer}"
        nodes.append(
            helper.make_node("Conv", [name, f"kernel{layer}"], [convolved], pads=[1, 1, 1, 1])
        )
        name, channels = f"layer{layer}", WIDTH
        nodes.append(helper.make_node("Relu", [convolved], [name]))
    last = random.normal(0, 0.2, (WIDTH, CLASSES)).astype(np.float32)
    weights.append(numpy_helper.from_array(last, "last"))
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "last"], ["y"]),
    ]
    border = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "classifier",
        [border("x", TensorProto.FLOAT, CLASSIFIER.inputs[0].shape)],
        [border("y", TensorProto.FLOAT, CLASSIFIER.outputs[0].shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def turned(path: Path, target: Path) -> Path:
    """Turn a picture's channels around before the first layer: same shapes, another layout."""
    model = onnx.load(path)
    graph = model.graph
    image = graph.input[0].name
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = "turned" if name == image else name
    graph.initializer.append(helper.make_tensor("order", TensorProto.INT64, [3], [2, 1, 0]))
    graph.node.insert(0, helper.make_node("Gather", [image, "order"], ["turned"], axis=1))
    onnx.save(model, target)
    return target


def scaled(path: Path, target: Path) -> Path:
    """Scale a network's input by a tenth more than it was trained with."""
    model = onnx.load(path)
    graph = model.graph
    image = graph.input[0].name
    for node in graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = "scaled" if name == image else name
    graph.initializer.append(helper.make_tensor("more", TensorProto.FLOAT, [1], [1.1]))
    graph.node.insert(0, helper.make_node("Mul", [image, "more"], ["scaled"]))
    onnx.save(model, target)
    return target
