"""What every runtime must do: the port's promises, checked on every way to run a graph as it is.

A new runtime joins by being registered. A rung that this host cannot run is skipped, and says why;
`scripts/conversions` runs those of TorchScript with a Python that has PyTorch.
Rungs that only differ in which file they load are one engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from superbrain.domain.engine import EngineFile, graph_profiles
from superbrain.domain.manifest import Graph, Range
from superbrain.domain.rungs import FILE_PRECISIONS, precision_of
from superbrain.engines.graph_check import InputMismatch
from superbrain.engines.onnx_session import CPU_PROVIDER, import_library
from superbrain.engines.onnxruntime import Placement, open_engine
from superbrain.engines.port import Engine, EngineError, ExecutionFailed, GraphMismatch
from superbrain.engines.registry import available, built_runtime_for, known_rungs, runtime_for
from superbrain.engines.tensorrt_build import BuildOrder, build
from superbrain.engines.tensorrt_flavour import DATATYPES, flavour_of
from superbrain.wire.datatypes import NUMPY_DTYPES
from tests.support.graphs import ADD, MATMUL, TinyGraph, declare, identity, save_graph, tensor
from tests.support.torch_graphs import save_script

PLAIN = [rung for rung in known_rungs() if precision_of(rung) not in FILE_PRECISIONS]
OBSTACLES = {rung: available(rung) for rung in PLAIN}
NATIVE = "torchscript:"
BOUND = "onnxruntime:cpu-graphs"  # the tensors bound, as where graphs are captured
CAPTURES = "-graphs"
NOT_CAPTURED = ("to capture a graph", "graph capture feature")  # of a graph, and said so
ENGINES = [*(rung for rung in PLAIN if not OBSTACLES[rung]), BOUND]

Load = Callable[..., Engine]


@pytest.mark.parametrize("rung", PLAIN)
def test_this_host_can_run_the_rung(rung: str) -> None:
    if OBSTACLES[rung]:
        pytest.skip(OBSTACLES[rung])
    assert rung in ENGINES


@pytest.fixture(params=ENGINES)
def rung(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load_file(rung: str, path: Path, graph: Graph) -> Engine:
    if rung == BOUND:
        placement = Placement(CPU_PROVIDER, {}, captures_on="cpu")
        return open_engine(import_library(), rung, path, graph, placement)
    runtime = built_runtime_for(rung)
    if runtime is None:
        return runtime_for(rung).load(rung, path, graph)
    return runtime.load_built(rung, build_here(rung, path, graph), path, graph)


def build_here(rung: str, path: Path, graph: Graph) -> EngineFile:
    """Build an engine as a builder process does, in this one; only on hosts that can run it."""
    precision = rung.partition(":")[2]
    order = BuildOrder(path, graph, precision, graph_profiles(graph), workspace_mib=64, limit_s=120)
    data = bytes(build(flavour_of(rung), order, lambda _phase, _percent: None).engine)
    target = path.with_suffix(".engine")
    target.write_bytes(data)
    return EngineFile("main", str(target), hashlib.sha256(data).hexdigest())


def not_held(rung: str, graph: TinyGraph) -> set[str]:
    """Give the datatypes of a graph that a rung's library does not know."""
    if rung == BOUND or built_runtime_for(rung) is None:
        return set()
    return {one.datatype for one in (*graph.inputs, *graph.outputs)} - set(DATATYPES.values())


def save(rung: str, path: Path, graph: TinyGraph) -> Path:
    """Save a graph in the form that the rung loads."""
    return (save_script if rung.startswith(NATIVE) else save_graph)(path, graph)


@pytest.fixture
def load(rung: str, tmp_path: Path) -> Load:
    """Save a graph and load it, declared as it is or as `declared` says."""

    def load_graph(graph: TinyGraph, declared: Graph | None = None) -> Engine:
        if unknown := not_held(rung, graph) & {*NUMPY_DTYPES, "BYTES"}:
            pytest.skip(f"{rung}: its library has no {', '.join(sorted(unknown))}")
        path = save(rung, tmp_path / "tiny.onnx", graph)
        try:
            return load_file(rung, path, declared or declare(graph))
        except EngineError as error:
            if CAPTURES in rung and any(one in error.message for one in NOT_CAPTURED):
                pytest.skip(f"{rung}: {error.message}")
            raise

    return load_graph


@pytest.fixture
def load_texts(load: Load, rung: str) -> Load:
    """The same for graphs of texts, which TorchScript has not and says so."""
    if rung.startswith(NATIVE):
        with pytest.raises(GraphMismatch, match="expected numbers, found BYTES"):
            load(identity("BYTES", 1))
        pytest.skip("TorchScript has no tensors of text, and says so")
    return load


@pytest.fixture
def add(load: Load) -> Engine:
    return load(ADD)


def rows(count: int, value: float = 1.0) -> np.ndarray:
    return np.full((count, 3), value, np.float32)


# --- what an engine says of itself --------------------------------------------------------------


def test_an_engine_names_its_rung(add: Engine, rung: str) -> None:
    assert add.rung == rung


def test_an_engine_names_library_and_version(add: Engine) -> None:
    library, version = add.runtime.split()
    assert library.isidentifier()
    assert version[0].isdigit()


def test_inputs_and_outputs_are_those_of_the_manifest(add: Engine) -> None:
    assert (add.inputs, add.outputs) == (tuple(ADD.inputs), tuple(ADD.outputs))


def test_the_metadata_of_the_file_is_there(add: Engine) -> None:
    assert add.metadata["character"] == "a\nb\nü"


# --- running ------------------------------------------------------------------------------------


def test_it_computes(add: Engine) -> None:
    outputs = add.run({"a": rows(2), "b": rows(2, 2.0)})
    assert outputs["sum"].tolist() == rows(2, 3.0).tolist()


def test_the_order_of_inputs_does_not_matter(load: Load) -> None:
    left, right = np.eye(2, 3, dtype=np.float32), np.ones((3, 2), np.float32)
    outputs = load(MATMUL).run({"right": right, "left": left})
    assert outputs["product"].tolist() == (left @ right).tolist()


@pytest.mark.parametrize("datatype", sorted(NUMPY_DTYPES))
def test_every_numeric_datatype_comes_out_as_it_went_in(load: Load, datatype: str) -> None:
    values = np.array([0, 1, 1], NUMPY_DTYPES[datatype])
    output = load(identity(datatype, 3)).run({"x": values})["y"]
    assert output.dtype == values.dtype
    assert output.tolist() == values.tolist()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 1, 1)])
def test_scalars_and_empty_tensors_keep_their_shape(load: Load, shape: tuple[int, ...]) -> None:
    output = load(identity("INT64", *shape)).run({"x": np.zeros(shape, np.int64)})["y"]
    assert output.shape == shape


@pytest.mark.parametrize("shape", [(), (2,), (0,), (1, 2)])
def test_strings_are_object_arrays_of_bytes(load_texts: Load, shape: tuple[int, ...]) -> None:
    values = np.full(shape, "grüße\0".encode(), dtype=object)
    output = load_texts(identity("BYTES", *shape)).run({"x": values})["y"]
    assert (output.dtype, output.shape) == (np.dtype(object), shape)
    assert output.tolist() == values.tolist()


def test_bytes_that_are_no_text_are_refused(load_texts: Load) -> None:
    values = np.array([b"\xff"], dtype=object)
    with pytest.raises(InputMismatch, match="'x': expected UTF-8 text, found 'utf-8' codec"):
        load_texts(identity("BYTES", 1)).run({"x": values})


def test_elements_that_are_no_bytes_are_refused(load_texts: Load) -> None:
    with pytest.raises(InputMismatch, match="expected elements of bytes"):
        load_texts(identity("BYTES", 1)).run({"x": np.array([7], dtype=object)})


def test_an_array_that_is_a_view_with_strides_is_read_right(add: Engine) -> None:
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)
    outputs = add.run({"a": wide[:, ::2], "b": rows(2, 0.0)})
    assert outputs["sum"].tolist() == wide[:, ::2].tolist()


def test_read_only_arrays_are_accepted(add: Engine) -> None:
    sealed = np.frombuffer(rows(1).tobytes(), np.float32).reshape(1, 3)
    assert add.run({"a": sealed, "b": sealed})["sum"].tolist() == [[2.0, 2.0, 2.0]]


def test_outputs_of_one_run_survive_the_next(add: Engine) -> None:
    first = add.run({"a": rows(1), "b": rows(1)})["sum"]
    add.run({"a": rows(1, 5.0), "b": rows(1, 5.0)})
    assert first.tolist() == [[2.0, 2.0, 2.0]]


REFUSED_INPUTS: dict[str, tuple[Any, str]] = {
    "missing": ({"a": rows(1)}, "graph inputs: expected 'a', 'b', found 'b' missing"),
    "extra": (
        {"a": rows(1), "b": rows(1), "c": rows(1)},
        "graph inputs: expected 'a', 'b', found 'c' not expected",
    ),
    "misnamed": (
        {"a": rows(1), "B": rows(1)},
        "graph inputs: expected 'a', 'b', found 'b' missing and 'B' not expected",
    ),
    "datatype": (
        {"a": rows(1).astype(np.float64), "b": rows(1)},
        "graph input 'a': expected FP32[N, 3] with N from 1 to 4, found FP64[1, 3]",
    ),
    "rank": (
        {"a": rows(1)[0], "b": rows(1)},
        "graph input 'a': expected FP32[N, 3] with N from 1 to 4, found FP32[3]",
    ),
    "fixed size": (
        {"a": rows(1)[:, :2], "b": rows(1)},
        "graph input 'a': expected FP32[N, 3] with N from 1 to 4, found FP32[1, 2]",
    ),
    "above its range": (
        {"a": rows(5), "b": rows(5)},
        "graph input 'a': expected FP32[N, 3] with N from 1 to 4, found FP32[5, 3]",
    ),
    "below its range": (
        {"a": rows(0), "b": rows(0)},
        "graph input 'a': expected FP32[N, 3] with N from 1 to 4, found FP32[0, 3]",
    ),
    "unequal": (
        {"a": rows(1), "b": rows(2)},
        (
            "graph input 'b': expected FP32[N, 3] with N from 1 to 4, found FP32[2, 3]; "
            "N is 1 in 'a' and 2 in 'b'"
        ),
    ),
    "no array": (
        {"a": [[1.0, 2.0, 3.0]], "b": rows(1)},
        "graph input 'a': expected FP32[N, 3] with N from 1 to 4, found list",
    ),
}


@pytest.mark.parametrize("name", REFUSED_INPUTS)
def test_inputs_that_do_not_fit_are_refused_with_a_sentence(add: Engine, name: str) -> None:
    inputs, sentence = REFUSED_INPUTS[name]
    with pytest.raises(InputMismatch) as caught:
        add.run(inputs)
    assert caught.value.message == sentence


def test_a_refused_input_leaves_the_engine_usable(add: Engine) -> None:
    with pytest.raises(ExecutionFailed):
        add.run({})
    assert add.run({"a": rows(1), "b": rows(1)})["sum"].shape == (1, 3)


def load_reshape(load: Load, rung: str, count: int, *sizes: str) -> Engine:
    """Load what gives its `count` numbers the sizes that are its other input."""
    if built_runtime_for(rung) is not None:
        pytest.skip(f"{rung}: its builder refuses inputs whose values are sizes")
    inputs = [tensor("x", "FP32", count), tensor("shape", "INT64", len(sizes))]
    return load(
        TinyGraph([("Reshape", ["x", "shape"], ["y"])], inputs, [tensor("y", "FP32", *sizes)])
    )


def test_what_the_library_throws_becomes_a_typed_error(load: Load, rung: str) -> None:
    engine = load_reshape(load, rung, 4, "M")
    with pytest.raises(ExecutionFailed) as caught:
        engine.run({"x": np.zeros(4, np.float32), "shape": np.array([3])})
    assert not isinstance(caught.value, InputMismatch)


def test_no_run_sees_the_inputs_of_another(add: Engine) -> None:
    for number in range(200):
        given = np.full((2, 3), number, np.float32)
        (found,) = add.run({"a": given, "b": given}).values()
        assert found.tolist() == (2 * given).tolist()


def test_shapes_that_come_often_are_answered_for_what_they_hold(add: Engine) -> None:
    """As often as it takes until a runtime binds memory, or captures what it does."""
    for number in range(30):
        rows = 1 + number // 2 % 3
        a = np.full((rows, 3), number, np.float32)
        found = add.run({"a": a, "b": np.full((rows, 3), 1000, np.float32)})["sum"]
        assert np.array_equal(found, a + 1000), number


def test_sizes_among_the_inputs_are_those_of_this_run(load: Load, rung: str) -> None:
    """The processor reads them, on a GPU too, and must not read what was there before."""
    if rung == BOUND:
        pytest.skip(
            f"{rung}: where graphs are captured such a file is refused, for what lies where"
        )
    engine = load_reshape(load, rung, 12, "M", "K")
    x = np.arange(12, dtype=np.float32)
    for number in range(200):
        sizes = ((3, 4), (4, 3), (2, 6), (6, 2), (12, 1))[number % 5]
        (y,) = engine.run({"x": x, "shape": np.array(sizes)}).values()
        assert y.tolist() == x.reshape(sizes).tolist()


def test_a_closed_engine_says_so(add: Engine) -> None:
    add.close()
    with pytest.raises(ExecutionFailed, match="expected an open engine, found a closed one"):
        add.run({"a": rows(1), "b": rows(1)})


# --- the manifest against the file --------------------------------------------------------------


def declared(**changes: list[object]) -> Graph:
    """ADD as a manifest might wrongly declare it."""
    fields = {"inputs": ADD.inputs, "outputs": ADD.outputs, **changes}
    dynamic = {**ADD.dynamic, "M": Range(1, 3, 4)}
    return Graph("graphs/tiny.onnx", dynamic=dynamic, **fields)  # type: ignore[arg-type]


A, B, SUM = ADD.inputs[0], ADD.inputs[1], ADD.outputs[0]
CONTRADICTIONS = {
    "missing input": (
        declared(inputs=[A]),
        "tiny.onnx: expected the inputs of the manifest, 'a', found 'a', 'b' in the file",
    ),
    "extra output": (
        declared(outputs=[SUM, tensor("more", "FP32", 1)]),
        "tiny.onnx: expected the outputs of the manifest, 'sum', 'more', found 'sum' in the file",
    ),
    "datatype": (
        declared(inputs=[A, tensor("b", "FP64", "N", 3)]),
        (
            "tiny.onnx: input 'b': expected FP64[N, 3] as the manifest says, "
            "found FP32[N, 3] in the file"
        ),
    ),
    "rank": (
        declared(outputs=[tensor("sum", "FP32", "N", 3, 1)]),
        (
            "tiny.onnx: output 'sum': expected FP32[N, 3, 1] as the manifest says, "
            "found FP32[N, 3] in the file"
        ),
    ),
    "fixed size": (
        declared(inputs=[tensor("a", "FP32", "N", 4), B]),
        (
            "tiny.onnx: input 'a': expected FP32[N, 4] as the manifest says, "
            "found FP32[N, 3] in the file"
        ),
    ),
    "a name where the file is fixed": (
        declared(inputs=[tensor("a", "FP32", "N", "M"), B]),
        (
            "tiny.onnx: input 'a': expected FP32[N, M] as the manifest says, "
            "found FP32[N, 3] in the file"
        ),
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_manifest_that_contradicts_the_file_is_refused(load: Load, rung: str, name: str) -> None:
    manifest, sentence = CONTRADICTIONS[name]
    if built_runtime_for(rung) is not None:  # which has no names for what a file leaves open
        sentence = sentence.replace("found FP32[N,", "found FP32[?,")
    with pytest.raises(GraphMismatch) as caught:
        load(ADD, manifest)
    assert caught.value.message == sentence


def test_a_size_the_file_leaves_open_may_be_fixed_by_the_manifest(load: Load) -> None:
    fixed = declared(inputs=[tensor("a", "FP32", 2, 3), tensor("b", "FP32", 2, 3)])
    with pytest.raises(InputMismatch, match=r"expected FP32\[2, 3\], found FP32\[1, 3\]"):
        load(ADD, fixed).run({"a": rows(1), "b": rows(1)})


def test_a_size_the_file_leaves_open_may_have_another_name_in_the_manifest(load: Load) -> None:
    renamed = [tensor(one.name, "FP32", "batch", 3) for one in (A, B, SUM)]
    bounds = {"batch": Range(1, 1, 9)}
    graph = Graph("graphs/tiny.onnx", renamed[:2], renamed[2:], bounds)
    assert load(ADD, graph).run({"a": rows(9), "b": rows(9)})["sum"].shape == (9, 3)


@pytest.mark.parametrize(
    ("datatype", "spelled"), [("BF16", "bfloat16"), ("COMPLEX64", "complex64")]
)
def test_a_datatype_numpy_cannot_hold_is_refused_by_name(
    load: Load, rung: str, datatype: str, spelled: str
) -> None:
    if built_runtime_for(rung) is not None:
        pytest.skip(f"{rung}: BF16 at its border is FP32 in a manifest")
    with pytest.raises(GraphMismatch, match=f"found .*{spelled}") as caught:
        load(identity(datatype, 2), declare(identity("FP32", 2)))
    assert "Cast to float32" in caught.value.mend


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x08"])
def test_a_file_that_is_no_graph_is_a_typed_error(
    rung: str, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"broken\.onnx"):
        load_file(rung, path, declare(ADD))


def test_a_truncated_graph_is_a_typed_error(rung: str, tmp_path: Path) -> None:
    path = save(rung, tmp_path / "cut.onnx", ADD)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(EngineError, match=r"cut\.onnx"):
        load_file(rung, path, declare(ADD))
