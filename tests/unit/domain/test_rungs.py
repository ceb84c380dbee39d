"""What the name of a rung says, and which file it loads."""

from __future__ import annotations

import pytest

from superbrain.domain.manifest import Close, Exact, Golden, Graph
from superbrain.domain.rungs import (
    graph_file,
    graph_files,
    missing_precision,
    precision_of,
    reference_rung,
    tolerances_on,
    uses_gpu,
    wrong_form,
)

PLAIN = Graph("graphs/a.onnx", [], [])
BOTH = Graph(
    "graphs/b.onnx",
    [],
    [],
    precisions={"fp16": "graphs/b.fp16.onnx", "int8": "graphs/b.int8.onnx"},
)


@pytest.mark.parametrize(
    ("rung", "precision", "gpu"),
    [
        ("onnxruntime:cpu", "", False),
        ("onnxruntime:cpu-int8", "int8", False),
        ("onnxruntime:cuda", "", True),
        ("onnxruntime:cuda-tf32", "tf32", True),
        ("tensorrt:fp16", "fp16", True),
        ("tensorrt-rtx:fp32", "fp32", True),
        ("abacus:wood", "", True),
        ("no-colon-fp16", "", True),
    ],
)
def test_a_rung_names_its_precision_and_whether_it_needs_a_gpu(
    rung: str, precision: str, gpu: bool
) -> None:
    assert (precision_of(rung), uses_gpu(rung)) == (precision, gpu)


@pytest.mark.parametrize(
    ("rung", "path"),
    [
        ("onnxruntime:cpu", "graphs/b.onnx"),
        ("onnxruntime:cuda-tf32", "graphs/b.onnx"),
        ("tensorrt:fp32", "graphs/b.onnx"),
        ("onnxruntime:cpu-int8", "graphs/b.int8.onnx"),
        ("tensorrt:fp16", "graphs/b.fp16.onnx"),
        ("tensorrt:bf16", "graphs/b.onnx"),
    ],
)
def test_a_rung_loads_the_file_of_its_precision_else_the_graph_as_it_is(
    rung: str, path: str
) -> None:
    assert graph_file(BOTH, rung) == path


def test_all_files_of_a_graph_begin_with_the_graph_as_it_is() -> None:
    assert graph_files(BOTH) == ("graphs/b.onnx", "graphs/b.fp16.onnx", "graphs/b.int8.onnx")


def test_one_graph_with_the_precision_is_enough() -> None:
    assert missing_precision({"a": PLAIN, "b": BOTH}, "onnxruntime:cpu-fp16") == ""


@pytest.mark.parametrize("rung", ["onnxruntime:cpu", "tensorrt:tf32"])
def test_a_rung_for_the_graph_as_it_is_misses_nothing(rung: str) -> None:
    assert missing_precision({"a": PLAIN}, rung) == ""


@pytest.mark.parametrize(("graph", "found"), [(PLAIN, "no precisions"), (BOTH, "fp16, int8")])
def test_a_precision_that_no_graph_has_is_told(graph: Graph, found: str) -> None:
    assert missing_precision({"a": graph}, "tensorrt:fp8") == (
        f"tensorrt:fp8: expected a graph with a file of precision fp8, found {found} in the bundle"
    )


def test_a_rung_of_a_precision_may_have_tolerances_of_its_own() -> None:
    golden = Golden(
        [],
        {"label": Exact(), "scores": Close(1e-5, 1e-6)},
        precision_tolerances={"int8": {"scores": Close(0.05, 0.05)}},
    )
    assert tolerances_on(golden, "onnxruntime:cpu") == golden.tolerances
    assert tolerances_on(golden, "onnxruntime:cpu-fp16") == golden.tolerances
    assert tolerances_on(golden, "tensorrt:int8") == {"label": Exact(), "scores": Close(0.05, 0.05)}


@pytest.mark.parametrize(
    ("path", "rung", "found"),
    [
        ("graphs/a.onnx", "onnxruntime:cpu", ""),
        ("graphs/a.pt", "torchscript:cuda", ""),
        ("graphs/a.pt", "abacus:wood", ""),
        ("graphs/a.pt", "tensorrt:fp16", "expected an ONNX file, found graphs/a.pt"),
        ("graphs/a.onnx", "torchscript:cpu", "expected a TorchScript file (NAME.pt)"),
    ],
)
def test_a_rung_loads_files_of_its_own_form(path: str, rung: str, found: str) -> None:
    wrong = wrong_form(path, rung)
    assert found in wrong
    assert bool(found) == bool(wrong)


def test_what_is_recorded_is_what_the_graphs_as_they_are_answer() -> None:
    assert reference_rung({"a": PLAIN}) == "onnxruntime:cpu"
    assert reference_rung({"a": Graph("graphs/a.pt", [], [])}) == "torchscript:cpu"
