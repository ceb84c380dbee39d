"""Graphs in other precisions: what the converters write, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from superbrain.engines.conversion import CONVERTERS, convert
from superbrain.engines.graph_check import check_graph
from superbrain.engines.onnx_session import file_tensors, import_library, open_session
from superbrain.engines.port import EngineError
from tests.support.graphs import declare
from tests.support.networks import CLASSIFIER, classifier_network

SHAPE = (1, 3, 16, 16)
SAMPLES = [{"x": np.random.default_rng(seed).normal(0, 1, SHAPE).astype("f4")} for seed in (1, 2)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "main.onnx"
    onnx.save(classifier_network(), path)
    return path


@pytest.mark.parametrize("precision", CONVERTERS)
def test_a_converted_graph_takes_and_gives_what_it_did_and_the_original_stays(
    source: Path, precision: str
) -> None:
    before = source.read_bytes()
    target = source.with_name("converted.onnx")
    convert(precision, source, target, SAMPLES)
    session = open_session(import_library(), target, "CPUExecutionProvider", 1)
    check_graph("converted", declare(CLASSIFIER), *file_tensors(target, session))
    assert source.read_bytes() == before
    assert sorted(path.name for path in source.parent.iterdir()) == ["converted.onnx", "main.onnx"]


def test_int8_is_symmetric_and_keeps_one_bit_of_its_weights_free(source: Path) -> None:
    target = source.with_name("int8.onnx")
    convert("int8", source, target, SAMPLES)
    graph = onnx.load(target).graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    zeros = [value for name, value in values.items() if name.endswith("zero_point")]
    weights = [value for value in values.values() if value.dtype == np.int8 and value.ndim > 1]
    assert zeros
    assert not any(value.any() for value in zeros)
    assert weights
    assert max(int(np.abs(value.astype(int)).max()) for value in weights) <= 64


def test_int8_without_a_sample_says_what_it_needs(source: Path) -> None:
    with pytest.raises(EngineError, match="expected golden cases that run through this graph"):
        convert("int8", source, source.with_name("int8.onnx"), [])


@pytest.mark.parametrize("precision", CONVERTERS)
def test_what_a_converter_throws_becomes_a_typed_error(tmp_path: Path, precision: str) -> None:
    source = tmp_path / "broken.onnx"
    source.write_bytes(b"no protobuf at all")
    with pytest.raises(EngineError, match=rf"broken\.onnx: expected a graph that .* {precision}"):
        convert(precision, source, tmp_path / "out.onnx", SAMPLES)


def test_an_older_graph_is_quantised_with_one_scale_for_each_weight(tmp_path: Path) -> None:
    old = classifier_network()
    old.opset_import[0].version = 12
    source = tmp_path / "old.onnx"
    onnx.save(old, source)
    convert("int8", source, tmp_path / "int8.onnx", SAMPLES)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    scales = [one for one in graph.initializer if one.name.endswith("_scale")]
    assert all(numpy_helper.to_array(one).size == 1 for one in scales)
