"""One small real ONNX graph for each template, whose answers a test can work out by itself.

>>> save_detector(tmp_path / "cells.onnx")

The graphs see colours, so a test paints what they are to find. None has random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
Shape = Sequence[int | str]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

CLASS_WEIGHTS = np.array([[2, -1, 0, 1], [-1, 2, 0, 1], [0, -1, 2, 1]], np.float32)
CELL = 8  # pixels: the detector answers for cells of this size
VOCABULARY = np.cos(np.arange(20 * 6).reshape(20, 6)).astype(np.float32)
WINDOW = 400
TABLE_WEIGHTS = np.array([[1, -1], [0.5, 0], [-0.25, 0.75]], np.float32)


def save_classifier(path: Path) -> Path:
    """Mean colour of [N, 3, 16, 16] times CLASS_WEIGHTS: logits of 4 classes, named."""
    return _save(
        path,
        [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["colour"]),
            helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
        ],
        inputs={"x": (FLOAT, ["batch", 3, 16, 16])},
        outputs={"logits": (FLOAT, ["batch", 4])},
        weights={"weights": CLASS_WEIGHTS},
        metadata={"names": "{0: 'red', 1: 'green', 2: 'blue', 3: 'grey'}"},
    )


def save_detector(path: Path) -> Path:
    """A candidate for every CELL of a picture of any size: its box, its red and its green."""
    return _save(
        path,
        [
            helper.make_node(
                "AveragePool", ["x"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]
            ),
            helper.make_node("Split", ["cells"], ["red", "green", "blue"], axis=1),
            helper.make_node("Mul", ["red", "zero"], ["zeros"]),
            helper.make_node("Add", ["zeros", "one"], ["ones"]),
            helper.make_node("CumSum", ["ones", "across"], ["columns"]),
            helper.make_node("CumSum", ["ones", "down"], ["rows"]),
            helper.make_node("Mul", ["ones", "cell"], ["side"]),
            helper.make_node("Sub", ["columns", "half"], ["column"]),
            helper.make_node("Sub", ["rows", "half"], ["row"]),
            helper.make_node("Mul", ["column", "cell"], ["centre_x"]),
            helper.make_node("Mul", ["row", "cell"], ["centre_y"]),
            helper.make_node(
                "Concat",
                ["centre_x", "centre_y", "side", "side", "red", "green"],
                ["planes"],
                axis=1,
            ),
            helper.make_node("Reshape", ["planes", "flat"], ["output0"]),
        ],
        inputs={"x": (FLOAT, [1, 3, "height", "width"])},
        outputs={"output0": (FLOAT, [1, 6, "candidates"])},
        weights={
            "zero": np.array(0, np.float32),
            "one": np.array(1, np.float32),
            "half": np.array(0.5, np.float32),
            "cell": np.array(CELL, np.float32),
            "across": np.array(3, np.int64),
            "down": np.array(2, np.int64),
            "flat": np.array([1, 6, -1], np.int64),
        },
        metadata={"names": "{0: 'red', 1: 'green'}"},
    )


def save_segmenter(path: Path) -> Path:
    """Scores of three colours for every two by two pixels of a picture of any size."""
    return _save(
        path,
        [helper.make_node("AveragePool", ["x"], ["scores"], kernel_shape=[2, 2], strides=[2, 2])],
        inputs={"x": (FLOAT, [1, 3, "height", "width"])},
        outputs={"scores": (FLOAT, [1, 3, "rows", "columns"])},
    )


def save_text_finder(path: Path) -> Path:
    """Text is what has a colour: the distance between the largest and the least channel."""
    return _save(
        path,
        [
            helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
            helper.make_node("ReduceMin", ["x"], ["least"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["most", "least"], ["distance"]),
            helper.make_node("Mul", ["distance", "half"], ["map"]),
        ],
        inputs={"x": (FLOAT, ["batch", 3, "height", "width"])},
        outputs={"map": (FLOAT, ["batch", 1, "height", "width"])},
        weights={"half": np.array(0.5, np.float32)},
    )


def save_text_reader(path: Path) -> Path:
    """Reads red as a, green as b, blue as c, and what has no colour as nothing, every 8 pixels."""
    # Rows: blank, a, b, c; columns: blue, green, red.
    contrasts = np.array([[0, 0, 0], [-0.5, -0.5, 1], [-0.5, 1, -0.5], [1, -0.5, -0.5]], np.float32)
    return _save(
        path,
        [
            helper.make_node(
                "AveragePool", ["x"], ["columns"], kernel_shape=[48, 8], strides=[48, 8]
            ),
            helper.make_node("Squeeze", ["columns", "second"], ["colours"]),
            helper.make_node("MatMul", ["contrasts", "colours"], ["classes"]),
            helper.make_node("Add", ["classes", "blank"], ["raised"]),
            helper.make_node("Transpose", ["raised"], ["positions"], perm=[0, 2, 1]),
            helper.make_node("Softmax", ["positions"], ["probabilities"], axis=2),
        ],
        inputs={"x": (FLOAT, ["batch", 3, 48, "width"])},
        outputs={"probabilities": (FLOAT, ["batch", "positions", 4])},
        weights={
            "contrasts": contrasts * 30,
            "blank": np.array([[6], [0], [0], [0]], np.float32),
            "second": np.array([2], np.int64),
        },
        metadata={"character": "a\nb\nc"},
    )


def save_text_embedder(path: Path) -> Path:
    """A row of VOCABULARY for every token; the mask changes nothing."""
    return _save(
        path,
        [
            helper.make_node("Gather", ["vocabulary", "input_ids"], ["rows"]),
            helper.make_node("Cast", ["attention_mask"], ["counts"], to=FLOAT),
            helper.make_node("Unsqueeze", ["counts", "last"], ["column"]),
            helper.make_node("Mul", ["column", "zero"], ["zeros"]),
            helper.make_node("Add", ["rows", "zeros"], ["last_hidden_state"]),
        ],
        inputs={
            "input_ids": (INT64, ["batch", "length"]),
            "attention_mask": (INT64, ["batch", "length"]),
        },
        outputs={"last_hidden_state": (FLOAT, ["batch", "length", 6])},
        weights={
            "vocabulary": VOCABULARY,
            "zero": np.array(0, np.float32),
            "last": np.array([2], np.int64),
        },
    )


def save_listener(path: Path) -> Path:
    """Mean of a window and of the state; the state becomes that answer and the window's peak."""
    return _save(
        path,
        [
            helper.make_node("ReduceMean", ["sound"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("ReduceMean", ["state"], ["before"], axes=[1], keepdims=1),
            helper.make_node("Add", ["mean", "before"], ["output"]),
            helper.make_node("ReduceMax", ["sound"], ["peak"], axes=[1], keepdims=1),
            helper.make_node("Concat", ["output", "peak"], ["state_after"], axis=1),
        ],
        inputs={"sound": (FLOAT, ["batch", WINDOW]), "state": (FLOAT, ["batch", 2])},
        outputs={"output": (FLOAT, ["batch", 1]), "state_after": (FLOAT, ["batch", 2])},
    )


def save_table_model(path: Path) -> Path:
    """Three columns times TABLE_WEIGHTS: probabilities of two classes, and the likelier one."""
    return _save(
        path,
        [
            helper.make_node("MatMul", ["features", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        inputs={"features": (FLOAT, ["rows", 3])},
        outputs={"label": (INT64, ["rows"]), "probabilities": (FLOAT, ["rows", 2])},
        weights={"weights": TABLE_WEIGHTS},
    )


def _save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, tuple[int, Shape]],
    weights: Mapping[str, Array] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        list(nodes),
        path.stem,
        [helper.make_tensor_value_info(n, *declared) for n, declared in inputs.items()],
        [helper.make_tensor_value_info(n, *declared) for n, declared in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
