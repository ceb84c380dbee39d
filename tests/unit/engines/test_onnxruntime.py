"""What is particular to ONNX Runtime: session settings, external data, and its absence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from superbrain.engines.onnx_session import open_session
from superbrain.engines.onnxruntime import OnnxRuntime
from superbrain.engines.port import EngineError, GraphMismatch, RungUnavailable
from tests.support.graphs import (
    ADD,
    DOUBLE,
    IR_VERSION,
    OPSET,
    TinyGraph,
    declare,
    save_graph,
    tensor,
)

RUNG = "onnxruntime:cpu"
WEIGHTS = np.arange(4, dtype=np.float32)


def save_with_external_weights(folder: Path, location: str) -> Path:
    """A graph y = x + weights, whose weights lie in the file `location`."""
    weights = numpy_helper.from_array(WEIGHTS, "weights")
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", location
    border = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weights"], ["y"])],
        "external",
        [border("x", onnx.TensorProto.FLOAT, [4])],
        [border("y", onnx.TensorProto.FLOAT, [4])],
        [weights],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    folder.mkdir(exist_ok=True)
    path = folder / "external.onnx"
    path.write_bytes(model.SerializeToString())
    return path


EXTERNAL = TinyGraph([], [tensor("x", "FP32", 4)], [tensor("y", "FP32", 4)])


def test_external_data_is_found_beside_the_file(tmp_path: Path) -> None:
    path = save_with_external_weights(tmp_path / "graphs", "weights.bin")
    WEIGHTS.tofile(path.parent / "weights.bin")
    engine = OnnxRuntime().load(RUNG, path, declare(EXTERNAL))
    assert engine.run({"x": WEIGHTS})["y"].tolist() == (2 * WEIGHTS).tolist()


@pytest.mark.parametrize("kind", ["parent", "absolute", "symlink", "absent"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "weights.bin"
    WEIGHTS.tofile(outside)
    location = {"parent": "../weights.bin", "absolute": str(outside)}.get(kind, "weights.bin")
    path = save_with_external_weights(tmp_path / "graphs", location)
    if kind == "symlink":
        (path.parent / "weights.bin").symlink_to(outside)
    with pytest.raises(EngineError, match=r"external\.onnx: ONNX Runtime refused to load it"):
        OnnxRuntime().load(RUNG, path, declare(EXTERNAL))


def test_the_session_waits_without_spinning(tmp_path: Path) -> None:
    session = open_session(
        onnxruntime, save_graph(tmp_path / "add.onnx", ADD), "CPUExecutionProvider", threads=2
    )
    options = session.get_session_options()
    for key in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
        assert options.get_session_config_entry(key) == "0"


@pytest.mark.parametrize(("declared", "used"), [(3, 3), (1, 1), (0, 1)])
def test_threads_are_what_the_manifest_grants(tmp_path: Path, declared: int, used: int) -> None:
    session = open_session(
        onnxruntime, save_graph(tmp_path / "add.onnx", ADD), "CPUExecutionProvider", declared
    )
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (used, 1)


def test_a_graph_that_gives_no_tensor_is_refused(tmp_path: Path) -> None:
    border = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["many"])],
        "sequence",
        [border("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_sequence_value_info("many", onnx.TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    path = tmp_path / "sequence.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GraphMismatch, match=r"output 'many': .* found seq\(tensor\(float\)\)"):
        OnnxRuntime().load(RUNG, path, declare(EXTERNAL))


def test_a_shape_the_file_leaves_out_is_taken_from_the_manifest(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "double.onnx", DOUBLE)
    model = onnx.load(path)
    for border in (*model.graph.input, *model.graph.output):
        border.type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())
    engine = OnnxRuntime().load(RUNG, path, declare(DOUBLE))
    assert engine.run({"x": np.ones(2, np.float32)})["y"].tolist() == [2.0, 2.0]


def test_a_provider_that_was_not_asked_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["SomewhereElse"])
    path = save_graph(tmp_path / "add.onnx", ADD)
    with pytest.raises(RungUnavailable, match="found SomewhereElse"):
        OnnxRuntime().load(RUNG, path, declare(ADD))


def test_without_the_library_the_rung_is_unavailable_and_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'superbrain[cpu]'" in OnnxRuntime().unavailable(RUNG)


def test_an_engine_of_one_thread_starts_none(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/task").iterdir()))
    open_session(
        onnxruntime, save_graph(tmp_path / "add.onnx", ADD), "CPUExecutionProvider", threads=1
    )
    assert len(list(Path("/proc/self/task").iterdir())) == before


def test_the_library_tells_nobody_that_it_is_used(tmp_path: Path) -> None:
    """Left alone it keeps an id of this host below the home folder, to send with what it tells."""
    path = save_graph(tmp_path / "graphs" / "add.onnx", ADD)
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import pathlib; from superbrain.engines.onnxruntime import look_at; "
        f"print(len(look_at(pathlib.Path({str(path)!r})).inputs))"
    )
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(ADD.inputs)
    assert done.stderr == ""
    assert list(home.iterdir()) == []
