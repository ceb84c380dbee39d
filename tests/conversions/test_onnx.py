"""ONNX files themselves: lifted, checked, simplified, and still answering as before."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conversions.author import Author
from tests.conversions.makers.talk import keep
from tests.support import autocast
from tests.support.networks import detector_folder


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


def test_naive_fp16_of_a_text_detector_is_refused_with_figures_and_left_out(
    author: Author,
) -> None:
    """PP-OCRv4 as a package ships it; `tests/integration/test_ladder.py` forces its fp16 file."""
    detector = detector_folder(author.folder)
    pages = np.concatenate([np.load(path) for path in detector.glob("golden/*/request/x.npy")])
    samples = author.folder / "samples"
    samples.mkdir()
    for number, page in enumerate([*pages, *pages[:, :, ::-1]]):
        np.save(samples / f"{number}.npy", np.ascontiguousarray(page[np.newaxis]))
    words = ("--input", "x=float32[1,3,height,width]", "--samples", str(samples))
    sizes = ("--dynamic", "height=32:96:160", "--dynamic", "width=32:160:288")
    target = author.folder / "ocr"
    code, said = author.convert(
        str(detector / "graphs/det.onnx"),
        *words,
        *sizes,
        *("--precision", "fp16", "--light", "--output", str(target)),
    )
    (fp16,) = said["precisions"]
    assert (code, fp16["kept"], said["ladder"]) == (6, False, ["onnxruntime:cpu"])
    assert fp16["figures"][0]["share"] > 10 * fp16["within"]
    assert "expected 0.01 at most" in fp16["reason"]
    assert fp16["converter"].startswith("rounding, onnxruntime ")
    assert [path.name for path in (target / "graphs").iterdir()] == ["model.onnx"]
    assert "fp16" not in (target / "bundle.toml").read_text().partition("[graphs.main]")[2]


def test_autocast_is_taken_where_it_is_installed_beside_superbrain_and_named(
    author: Author, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = autocast.python_with(author.folder / "venv", autocast.CASTS)
    monkeypatch.setattr(sys, "executable", python)
    target = author.folder / "cast"
    words = ("--input", "x=float32[batch,4]", "--precision", "fp16", "--output", str(target))
    code, said = author.convert("old.onnx", *words, where=made)
    (fp16,) = said["precisions"]
    assert (code, fp16["kept"]) == (0, True)
    assert (fp16["converter"], fp16["note"]) == (autocast.NAME, "")
    comments = (target / "bundle.toml").read_text().replace("\n# ", " ")
    assert f"The fp16 file, made by {autocast.NAME}, and measured" in comments
