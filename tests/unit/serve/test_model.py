"""A loaded bundle answers requests: without code, in two steps, or with `run` over many graphs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from superbrain.domain.manifest import Manifest
from superbrain.engines.port import EngineError, GraphMismatch, PrecisionMissing, RungUnavailable
from superbrain.serve.bundle_code import BundleCodeError
from superbrain.serve.model import Model
from superbrain.wire.errors import Internal, InvalidArgument, NotFound, RequestError
from tests.support.graphs import (
    ADD,
    DOUBLE,
    MATMUL,
    TinyGraph,
    identity,
    save_graph,
    save_with_weights,
    tensor,
)
from tests.support.models import RUNG, border, write_model

Open = Callable[..., Model]
X, Y = border("x", "FP32", -1), border("y", "FP32", -1)
ONES = np.ones(2, np.float32)

STEPS = """\
import numpy as np

class Pipeline:
    def __init__(self, bundle):
        self.labels = bundle.text("labels.txt").split()

    def preprocess(self, request):
        if not request["text"]:
            raise ValueError("expected a text, found an empty one")
        if request["text"] == b"crash":
            {}["gone"]
        if request["text"] == b"exit":
            raise SystemExit(4)
        if request["text"] == b"long":
            return {"x": np.zeros(99, np.float32)}
        if request["text"] == b"none":
            return None
        return {"x": np.array([float(request["text"])], np.float32)}

    def postprocess(self, outputs, request):
        value = float(outputs["y"][0])
        if value > 1000:
            raise ValueError("too large to label")
        return {"label": self.labels[value > 10], "value": value}
"""
STEPS_INTERFACE: dict[str, Any] = {
    "inputs": [border("text", "BYTES")],
    "outputs": [border("label", "BYTES"), border("value", "FP32")],
}


@pytest.fixture
def open_model(tmp_path: Path) -> Iterator[Open]:
    """Write a bundle and open it; closed again after the test."""
    opened: list[Model] = []

    def write_and_open(**bundle: Any) -> Model:  # noqa: ANN401
        manifest = write_model(tmp_path, **bundle)
        opened.append(Model.open(tmp_path, manifest, RUNG))
        return opened[-1]

    yield write_and_open
    for model in opened:
        model.close()


@pytest.fixture
def plain(open_model: Open) -> Model:
    return open_model(graphs={"double": DOUBLE}, inputs=[X], outputs=[Y])


@pytest.fixture
def steps(open_model: Open) -> Model:
    return open_model(
        graphs={"double": DOUBLE},
        files={"code/pipeline.py": STEPS, "assets/labels.txt": "small large"},
        **STEPS_INTERFACE,
    )


def text(content: bytes) -> dict[str, Any]:
    array = np.empty((), object)
    array[()] = content
    return {"text": array}


# --- without code -------------------------------------------------------------------------------


def test_a_bundle_without_code_serves_its_graph_as_it_is(plain: Model) -> None:
    assert plain.infer({"x": ONES})["y"].tolist() == [2.0, 2.0]


def test_a_model_names_the_library_that_runs_it(plain: Model) -> None:
    assert plain.runtime.startswith("onnxruntime ")


def test_the_response_has_the_order_of_the_interface(open_model: Open) -> None:
    both = TinyGraph(
        [("Identity", ["x"], ["first"]), ("Identity", ["x"], ["second"])],
        identity("FP32", 1).inputs,
        [tensor("first", "FP32", 1), tensor("second", "FP32", 1)],
    )
    model = open_model(
        graphs={"both": both},
        inputs=[border("x", "FP32", 1)],
        outputs=[border("second", "FP32", 1), border("first", "FP32", 1)],
    )
    assert list(model.infer({"x": np.zeros(1, np.float32)})) == ["second", "first"]


def test_strings_pass_through_as_bytes(open_model: Open) -> None:
    model = open_model(
        graphs={"same": identity("BYTES")},
        inputs=[border("x", "BYTES")],
        outputs=[border("y", "BYTES")],
    )
    assert model.infer({"x": text(b"hello")["text"]})["y"].item() == b"hello"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({}, "request tensors: expected 'x', found 'x' missing"),
    "unknown": (
        {"x": ONES, "z": ONES},
        "request tensors: expected 'x', found 'z' not expected",
    ),
    "datatype": (
        {"x": ONES.astype(np.float64)},
        "request tensor 'x': expected FP32[-1], found FP64[2]",
    ),
    "rank": ({"x": ONES.reshape(1, 2)}, "request tensor 'x': expected FP32[-1], found FP32[1, 2]"),
    "the graph's range": (
        {"x": np.ones(17, np.float32)},
        "graph input 'x': expected FP32[N] with N from 1 to 16, found FP32[17]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_does_not_fit_is_the_callers_fault(plain: Model, name: str) -> None:
    request, sentence = REFUSED[name]
    with pytest.raises(InvalidArgument) as caught:
        plain.infer(request)
    assert caught.value.message == sentence


def test_a_fixed_size_of_the_interface_is_kept(open_model: Open) -> None:
    model = open_model(graphs={"d": DOUBLE}, inputs=[border("x", "FP32", 3)], outputs=[Y])
    with pytest.raises(InvalidArgument, match=r"expected FP32\[3\], found FP32\[2\]"):
        model.infer({"x": ONES})


def test_a_graph_that_answers_what_the_interface_does_not_say_is_internal(open_model: Open) -> None:
    model = open_model(graphs={"d": DOUBLE}, inputs=[X], outputs=[border("y", "FP32", 5)])
    with pytest.raises(Internal, match=r"response tensor 'y': expected FP32\[5\], found FP32\[2\]"):
        model.infer({"x": ONES})


# --- preprocess and postprocess -----------------------------------------------------------------


def test_both_steps_surround_the_graph(steps: Model) -> None:
    response = steps.infer(text(b"7"))
    assert (response["label"].item(), response["value"].item()) == (b"large", 14.0)


def test_a_value_error_of_preprocess_refuses_the_request_in_its_own_words(steps: Model) -> None:
    with pytest.raises(InvalidArgument) as caught:
        steps.infer(text(b""))
    assert caught.value.message == "expected a text, found an empty one"


def test_a_value_error_of_a_library_is_the_pipelines_fault(steps: Model) -> None:
    with pytest.raises(Internal, match=r"preprocess failed: ValueError: could not convert .*:18\)"):
        steps.infer(text(b"no number"))


def test_any_other_error_is_internal_with_type_text_file_and_line(steps: Model) -> None:
    with pytest.raises(Internal) as caught:
        steps.infer(text(b"crash"))
    line = STEPS.splitlines().index('            {}["gone"]') + 1
    assert caught.value.message == (
        f"the bundle's preprocess failed: KeyError: 'gone' (code/pipeline.py:{line})"
    )


def test_a_value_error_of_postprocess_is_internal(steps: Model) -> None:
    with pytest.raises(Internal, match=r"postprocess failed: ValueError: too large to label"):
        steps.infer(text(b"1e6"))


def test_an_exit_ends_the_request_and_not_the_process(steps: Model) -> None:
    with pytest.raises(Internal, match=r"preprocess failed: SystemExit: 4"):
        steps.infer(text(b"exit"))


def test_inputs_that_do_not_fit_the_graph_are_the_pipelines_fault(steps: Model) -> None:
    with pytest.raises(Internal, match=r"graph 'double' after preprocess: graph input 'x'"):
        steps.infer(text(b"long"))


def test_a_preprocess_that_returns_nothing_is_internal(steps: Model) -> None:
    with pytest.raises(Internal, match="expected preprocess to return a dict"):
        steps.infer(text(b"none"))


def test_a_failed_request_leaves_the_model_usable(steps: Model) -> None:
    with pytest.raises(RequestError):
        steps.infer(text(b"crash"))
    assert steps.infer(text(b"1"))["label"].item() == b"small"


# --- run over several graphs --------------------------------------------------------------------

RUN = """\
from superbrain.wire.errors import NotFound

class Pipeline:
    def __init__(self, bundle):
        self.alphabet = bundle.graph("add").metadata["character"].split()
        self.names = [tensor.name for tensor in bundle.graph("add").inputs]
        self.least = bundle.graph("double").dynamic["N"].min

    def run(self, request, graphs):
        x = request["x"]
        if x[0] == 404:
            raise NotFound("no such page")
        if x[0] == 13:
            graphs["lost"]({"x": x})
        if x[0] == 14:
            graphs["double"]({"x": x.astype("f8")})
        if x[0] < self.least:
            raise ValueError(f"expected numbers above {self.least}")
        twice = graphs["double"]({"x": x})["y"].reshape(1, 3)
        total = graphs["add"]({"a": twice, "b": twice})["sum"]
        return {"y": total[0], "letters": self.alphabet, "names": self.names}
"""


@pytest.fixture
def many(open_model: Open) -> Model:
    return open_model(
        graphs={"double": DOUBLE, "add": ADD},
        inputs=[border("x", "FP32", 3)],
        outputs=[Y, border("letters", "BYTES", -1), border("names", "BYTES", -1)],
        files={"code/pipeline.py": RUN},
    )


def triple(value: float) -> dict[str, Any]:
    return {"x": np.full(3, value, np.float32)}


def test_run_calls_the_graphs_by_name(many: Model) -> None:
    assert many.infer(triple(1))["y"].tolist() == [4.0, 4.0, 4.0]


def test_the_pipeline_sees_metadata_and_tensors_of_its_graphs(many: Model) -> None:
    response = many.infer(triple(1))
    assert response["letters"].tolist() == [b"a", b"b", "ü".encode()]
    assert response["names"].tolist() == [b"a", b"b"]


def test_a_value_error_of_run_refuses_the_request(many: Model) -> None:
    with pytest.raises(InvalidArgument, match="expected numbers above 1"):
        many.infer(triple(0))


def test_a_request_error_of_the_bundle_stays_what_it_is(many: Model) -> None:
    with pytest.raises(NotFound, match="no such page"):
        many.infer(triple(404))


def test_a_graph_that_is_not_there_is_answered_with_those_that_are(many: Model) -> None:
    with pytest.raises(Internal, match=r"expected one of the bundle's graphs, double, add; found"):
        many.infer(triple(13))


def test_inputs_a_graph_refuses_within_run_are_internal_with_file_and_line(many: Model) -> None:
    with pytest.raises(Internal, match=r"InputMismatch: graph input 'x'.*\(code/pipeline\.py:16\)"):
        many.infer(triple(14))


# --- opening ------------------------------------------------------------------------------------

NO_PIPELINE: dict[str, tuple[dict[str, str], str]] = {
    "no class": ({"code/pipeline.py": ""}, "expected class Pipeline in code/pipeline.py"),
    "no steps": (
        {"code/pipeline.py": "class Pipeline:\n    def __init__(self, bundle): ..."},
        "expected class Pipeline of code/pipeline.py to have preprocess, found none",
    ),
    "one step": (
        {
            "code/pipeline.py": "class Pipeline:\n    def __init__(self, bundle): ...\n"
            "    def preprocess(self, request): ..."
        },
        "to have postprocess, found none",
    ),
    "another file": ({"code/pipe_it.py": ""}, "expected code/pipeline.py, found only pipe_it"),
    "raises": (
        {"code/pipeline.py": "class Pipeline:\n    def __init__(self, bundle): 1 / 0"},
        "ZeroDivisionError: division by zero (code/pipeline.py:2)",
    ),
    "no asset": (
        {
            "code/pipeline.py": "class Pipeline:\n    def __init__(self, b): b.asset('x.txt')",
            "assets/y.txt": "",
        },
        "expected asset 'x.txt' in the bundle, found assets/y.txt",
    ),
    "no graph": (
        {"code/pipeline.py": "class Pipeline:\n    def __init__(self, b): b.graph('z')"},
        "expected one of the bundle's graphs, double; found 'z'",
    ),
    "an asset outside": (
        {"code/pipeline.py": "class Pipeline:\n    def __init__(self, b): b.asset('../secret')"},
        "expected asset '../secret' in the bundle, found no assets",
    ),
}


@pytest.mark.parametrize("name", NO_PIPELINE)
def test_code_that_keeps_no_contract_does_not_open(open_model: Open, name: str) -> None:
    files, sentence = NO_PIPELINE[name]
    with pytest.raises(BundleCodeError) as caught:
        open_model(graphs={"double": DOUBLE}, inputs=[X], outputs=[Y], files=files)
    assert sentence in caught.value.message
    assert caught.value.bundle_at_fault


def test_several_graphs_need_run(open_model: Open) -> None:
    with pytest.raises(BundleCodeError, match="run\\(request, graphs\\) for a bundle of 2 graphs"):
        open_model(graphs={"a": DOUBLE, "b": MATMUL}, inputs=[X], outputs=[Y])


def test_a_bundle_that_does_not_open_leaves_no_module_behind(open_model: Open) -> None:
    finders = list(sys.meta_path)
    with pytest.raises(BundleCodeError):
        open_model(
            graphs={"double": DOUBLE},
            inputs=[X],
            outputs=[Y],
            files={"code/pipeline.py": "import sibling_it\n1 / 0", "code/sibling_it.py": ""},
        )
    assert sys.meta_path == finders
    assert "sibling_it" not in sys.modules


def opened(folder: Path, manifest: Manifest, rung: str = RUNG) -> None:
    with Model.open(folder, manifest, rung):
        pass


def test_a_graph_that_contradicts_the_manifest_is_named(tmp_path: Path) -> None:
    manifest = write_model(tmp_path, graphs={"double": DOUBLE}, inputs=[X], outputs=[Y])
    save_graph(tmp_path / "graphs/double.onnx", MATMUL)
    with pytest.raises(GraphMismatch, match=r"graph 'double': double\.onnx: expected the inputs"):
        opened(tmp_path, manifest)


def test_weights_outside_the_bundle_are_the_bundles_fault(tmp_path: Path) -> None:
    manifest = write_model(tmp_path, graphs={"double": DOUBLE}, inputs=[X], outputs=[Y])
    (tmp_path / "secret.bin").write_bytes(bytes(4))
    save_with_weights(tmp_path / "graphs/double.onnx", "../secret.bin")
    with pytest.raises(GraphMismatch, match=r"graph 'double': .*'\.\./secret\.bin'") as caught:
        opened(tmp_path, manifest)
    assert caught.value.bundle_at_fault


def test_an_unknown_rung_is_unavailable(tmp_path: Path) -> None:
    manifest = write_model(tmp_path, graphs={"double": DOUBLE}, inputs=[X], outputs=[Y])
    with pytest.raises(RungUnavailable, match="found 'abacus:wood'"):
        opened(tmp_path, manifest, "abacus:wood")


def test_a_graph_that_is_gone_is_a_typed_error(tmp_path: Path) -> None:
    manifest = write_model(tmp_path, graphs={"double": DOUBLE}, inputs=[X], outputs=[Y])
    (tmp_path / "graphs/double.onnx").unlink()
    with pytest.raises(EngineError, match=r"double\.onnx"):
        opened(tmp_path, manifest)


# --- files of other precisions --------------------------------------------------------------------


def with_precision(folder: Path, graph: TinyGraph) -> Manifest:
    """A bundle whose graph doubles, and whose int8 file is `graph`."""
    manifest = write_model(folder, graphs={"double": DOUBLE}, inputs=[X], outputs=[Y])
    save_graph(folder / "graphs/double.int8.onnx", graph)
    declared = msgspec.structs.replace(
        manifest.graphs["double"], precisions={"int8": "graphs/double.int8.onnx"}
    )
    return msgspec.structs.replace(manifest, graphs={"double": declared})


def test_a_rung_of_a_precision_loads_its_file_and_the_others_do_not(tmp_path: Path) -> None:
    same = TinyGraph([("Identity", ["x"], ["y"])], DOUBLE.inputs, DOUBLE.outputs)
    manifest = with_precision(tmp_path, same)
    found = {}
    for rung in ("onnxruntime:cpu", "onnxruntime:cpu-int8"):
        with Model.open(tmp_path, manifest, rung) as model:
            found[model.engines["double"].rung] = model.infer({"x": ONES})["y"].tolist()
    assert found == {"onnxruntime:cpu": [2.0, 2.0], "onnxruntime:cpu-int8": [1.0, 1.0]}


def test_a_rung_whose_precision_no_graph_has_is_unavailable(tmp_path: Path) -> None:
    manifest = write_model(tmp_path, graphs={"double": DOUBLE}, inputs=[X], outputs=[Y])
    with pytest.raises(PrecisionMissing, match="precision fp16, found no precisions") as caught:
        opened(tmp_path, manifest, "onnxruntime:cpu-fp16")
    assert "superbrain bundle precision" in caught.value.mend


def test_a_precision_that_contradicts_the_manifest_fails_its_rung_alone(tmp_path: Path) -> None:
    manifest = with_precision(tmp_path, identity("FP64", "N"))
    with pytest.raises(
        EngineError, match=r"double\.int8\.onnx: input 'x': expected FP32"
    ) as caught:
        opened(tmp_path, manifest, "onnxruntime:cpu-int8")
    assert not caught.value.bundle_at_fault
    opened(tmp_path, manifest)


def test_weights_of_a_precision_outside_the_bundle_are_the_bundles_fault(tmp_path: Path) -> None:
    manifest = with_precision(tmp_path, DOUBLE)
    save_with_weights(tmp_path / "graphs/double.int8.onnx", "../secret.bin")
    with pytest.raises(GraphMismatch, match=r"'\.\./secret\.bin'"):
        opened(tmp_path, manifest, "onnxruntime:cpu-int8")
