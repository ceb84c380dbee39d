"""How templates are fitted to graphs: what is told by the file, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from superbrain.cli.template.fitting import Fitted, GraphFile
from superbrain.cli.template.registry import TEMPLATES
from superbrain.cli.template.sources import python_value, source_of
from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import GraphTensor, Range
from tests.support.graphs import tensor

PICTURE = tensor("x", "FP32", "N", 3, 224, 224)
OPEN_PICTURE = tensor("x", "FP32", "N", 3, "H", "W")
Tensors = list[GraphTensor]


def graph(
    inputs: Tensors,
    outputs: Tensors,
    *,
    name: str = "model",
    operator: str = "",
    metadata: dict[str, str] | None = None,
) -> GraphFile:
    path = f"graphs/{name}.onnx"
    return GraphFile(name, path, inputs, outputs, metadata or {}, lambda _: operator, lambda _: 0)


def fit(template: str, *graphs: GraphFile) -> Fitted:
    return TEMPLATES[template].fit({one.name: one for one in graphs})


def constants(fitted: Fitted) -> Any:  # noqa: ANN401 - a test compares them one by one
    return fitted.constants["pipeline.py"]


# --- every template -----------------------------------------------------------------------------

FITTING = {
    "classification": [graph([PICTURE], [tensor("y", "FP32", "N", 10)])],
    "detection": [graph([PICTURE], [tensor("y", "FP32", "N", 84, 8400)])],
    "segmentation": [graph([OPEN_PICTURE], [tensor("y", "FP32", "N", 21, "H", "W")])],
    "ocr": [
        graph([OPEN_PICTURE], [tensor("y", "FP32", "N", 1, "H", "W")], name="det"),
        graph(
            [tensor("x", "FP32", "N", 3, 48, "W")],
            [tensor("y", "FP32", "N", "T", 12)],
            name="rec",
        ),
    ],
    "embedding": [graph([PICTURE], [tensor("y", "FP32", "N", 512)])],
    "audio": [graph([tensor("x", "FP32", "N", "S")], [tensor("y", "FP32", "N", 4)])],
    "tabular": [graph([tensor("x", "FP32", "N", 4)], [tensor("y", "FP32", "N", 3)])],
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_constant_that_is_set_is_at_the_top_of_its_file(template: str) -> None:
    fitted = fit(template, *FITTING[template])
    for file, module in fitted.code.items():
        text = source_of(file, fitted.constants.get(module, {}))
        compile(text, file, "exec")
        for name, value in fitted.constants.get(module, {}).items():
            assert f"\n{name} = {python_value(value)}" in text


@pytest.mark.parametrize("template", TEMPLATES)
def test_all_that_is_imported_comes_along(template: str) -> None:
    fitted = fit(template, *FITTING[template])
    modules = {module.removesuffix(".py") for module in fitted.code.values()}
    for file in fitted.code:
        imports = {
            line.split()[1]
            for line in source_of(file, {}).splitlines()
            if line.startswith(("import ", "from "))
        }
        assert imports <= modules | {"cv2", "numpy", "typing", "math", "collections.abc"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_output_has_a_tolerance(template: str) -> None:
    fitted = fit(template, *FITTING[template])
    assert fitted.tolerances.keys() == {output.name for output in fitted.outputs}


TEXT = graph([tensor("t", "BYTES", 1)], [tensor("y", "BYTES", 1)])


@pytest.mark.parametrize(
    ("template", "unfit", "words"),
    [
        ("classification", TEXT, "a picture of .* found t BYTES"),
        ("classification", graph([tensor("x", "FP32", 8, 3, 9, 9)], []), "a picture of"),
        ("classification", graph([tensor("x", "FP32", 1, 7, 9, 9)], []), "a picture of"),
        ("classification", graph([PICTURE], [tensor("y", "FP32", 1, 2, 3)]), r"\[1, classes\]"),
        ("detection", graph([PICTURE], [tensor("y", "FP32", 1, 10)]), "outputs of a detector"),
        ("segmentation", graph([PICTURE], [tensor("y", "FP32", 1, 10)]), "of scores .*, or of"),
        ("embedding", graph([PICTURE], [tensor("y", "INT64", 1, 10)]), "of floats, found y INT64"),
        ("embedding", graph([tensor("ids", "INT64", 9)], []), "inputs of token ids"),
        ("audio", TEXT, "an input of sound"),
        ("tabular", TEXT, "outputs of a table"),
        ("tabular", graph([PICTURE], [tensor("y", "FP32", 1, 10)]), "for every column"),
    ],
)
def test_a_graph_of_another_kind_is_refused_with_what_it_has(
    template: str, unfit: GraphFile, words: str
) -> None:
    with pytest.raises(RecipeError, match=rf"^graphs/model.onnx: expected .*{words}") as refusal:
        fit(template, unfit)
    assert refusal.value.reason == "RECIPE_TEMPLATE"
    assert "Take another --template" in refusal.value.mend


# --- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout"), [((1, 3, 8, 8), "NCHW"), ((1, 8, 8, 3), "NHWC"), ("NCHW", "NCHW")]
)
def test_the_layout_is_where_the_channels_are(shape: Any, layout: str) -> None:  # noqa: ANN401
    fitted = fit(
        "classification",
        graph([tensor("x", "FP32", *shape)], [tensor("y", "FP32", 1, 2)]),
    )
    assert constants(fitted)["LAYOUT"] == layout


def test_open_sizes_get_the_usual_ones_and_the_batch_its_bounds() -> None:
    fitted = fit("classification", graph([OPEN_PICTURE], [tensor("y", "FP32", "N", 2)]))
    square = Range(224, 224, 224)
    assert fitted.ranges["model"] == {"N": Range(1, 1, 8), "H": square, "W": square}
    assert constants(fitted)["RESIZE_SHORT"] == 256


def test_the_short_side_follows_the_size_of_the_graph() -> None:
    shape = tensor("x", "FP32", 1, 3, 448, 448)
    fitted = fit("classification", graph([shape], [tensor("y", "FP32", 1, 2)]))
    assert constants(fitted)["RESIZE_SHORT"] == 512


@pytest.mark.parametrize(
    ("operator", "activation"), [("Gemm", "softmax"), ("Softmax", "none"), ("Sigmoid", "none")]
)
def test_what_ends_in_probabilities_gets_no_activation(operator: str, activation: str) -> None:
    fitted = fit("classification", graph([PICTURE], [tensor("y", "FP32", 1, 2)], operator=operator))
    assert constants(fitted)["ACTIVATION"] == activation


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "{0: 'cat', 1: 'dog'}"},
        {"names": '["cat", "dog"]'},
        {"character": "cat\ndog"},
        {"id2label": '{"1": "dog", "0": "cat"}'},
        {"names": "[1, 2, 3]", "labels": "cat\ndog"},  # three are not two
    ],
)
def test_labels_are_taken_from_metadata_however_they_are_spelt(metadata: dict[str, str]) -> None:
    fitted = fit("classification", graph([PICTURE], [tensor("y", "FP32", 1, 2)], metadata=metadata))
    assert fitted.assets["labels.txt"] == "cat\ndog\n"


@pytest.mark.parametrize(
    ("shape", "names", "axis", "objectness", "classes"),
    [
        ((1, 84, 8400), "", 1, False, 80),
        ((1, 84, "A"), "", 1, False, 80),
        ((1, 25200, 85), "", 2, True, 80),
        ((1, 25200, 84), str(list("ab" * 40)), 2, False, 80),
    ],
)
def test_a_grid_is_told_by_its_smaller_size(
    shape: Any,  # noqa: ANN401
    names: str,
    axis: int,
    objectness: bool,
    classes: int,
) -> None:
    output = tensor("y", "FP32", *shape)
    fitted = fit("detection", graph([PICTURE], [output], metadata={"names": names}))
    found = constants(fitted)
    assert (found["FORM"], found["BOXES"]) == ("grid", "y")
    assert (found["CHANNELS_AXIS"], found["OBJECTNESS"]) == (axis, objectness)
    assert len(fitted.assets["labels.txt"].splitlines()) == classes


@pytest.mark.parametrize(
    "outputs",
    [
        [
            tensor("boxes", "FP32", "n", 4),
            tensor("labels", "INT64", "n"),
            tensor("scores", "FP32", "n"),
        ],
        [
            tensor("num_detections", "INT32", 1),
            tensor("boxes", "FP32", 1, 100, 4),
            tensor("scores", "FP32", 1, 100),
            tensor("labels", "FP32", 1, 100),
        ],
    ],
)
def test_lists_are_told_by_name_and_datatype(outputs: Tensors) -> None:
    found = constants(fit("detection", graph([PICTURE], outputs)))
    names = [found[name] for name in ("FORM", "BOXES", "SCORES", "CLASSES", "BOX", "MAX_OVERLAP")]
    assert names == ["lists", "boxes", "scores", "labels", "xyxy", 1.0]


@pytest.mark.parametrize(
    ("output", "operator", "expected"),
    [
        (tensor("y", "FP32", 1, 21, 8, 8), "", {"FORM": "scores", "CLASS_AXIS": 1}),
        (tensor("y", "FP32", 1, 1, 8, 8), "", {"FORM": "binary", "THRESHOLD": 0.0}),
        (tensor("y", "FP32", 1, 1, 8, 8), "Sigmoid", {"FORM": "binary", "THRESHOLD": 0.5}),
        (tensor("y", "INT64", 1, 8, 8), "ArgMax", {"FORM": "classes"}),
    ],
)
def test_planes_are_told_by_datatype_and_number(
    output: GraphTensor, operator: str, expected: dict[str, object]
) -> None:
    found = constants(fit("segmentation", graph([PICTURE], [output], operator=operator)))
    assert found | expected == found


# --- ocr ----------------------------------------------------------------------------------------


def test_a_dictionary_in_the_metadata_needs_no_file() -> None:
    det, rec = FITTING["ocr"]
    rec = rec._replace(metadata={"character": "a\nb"})
    fitted = fit("ocr", det, rec)
    assert (constants(fitted)["DICTIONARY"], fitted.assets) == ("", {})


def test_a_dictionary_that_is_not_there_is_an_asset_of_the_right_length() -> None:
    fitted = fit("ocr", *FITTING["ocr"])
    assert constants(fitted)["DICTIONARY"] == "dictionary.txt"
    assert len(fitted.assets["dictionary.txt"].splitlines()) == 11


def test_a_cls_graph_turns_strips_of_the_sizes_it_fixes() -> None:
    cls = graph([tensor("x", "FP32", 1, 3, 48, 160)], [tensor("y", "FP32", 1, 2)], name="cls")
    fitted = fit("ocr", *FITTING["ocr"], cls)
    assert constants(fitted)["CLS"] == "cls"
    assert fitted.constants["upright.py"] == {"BATCH": 1, "WIDTH": 160}


# --- embedding, audio, tables -------------------------------------------------------------------


HIDDEN = tensor("last_hidden_state", "FP32", "N", "L", 8)
POOLER = tensor("pooler_output", "FP32", "N", 8)
SENTENCE = tensor("sentence_embedding", "FP32", "N", 8)


@pytest.mark.parametrize(
    ("outputs", "output", "pooling"),
    [
        ([HIDDEN, POOLER], "last_hidden_state", "mean"),
        ([HIDDEN, SENTENCE], "sentence_embedding", "none"),
        ([POOLER], "pooler_output", "none"),
    ],
)
def test_a_pooled_output_is_taken_where_there_is_one_that_was_trained_for_it(
    outputs: Tensors, output: str, pooling: str
) -> None:
    inputs = [tensor("input_ids", "INT64", "N", "L"), tensor("token_type_ids", "INT64", "N", "L")]
    found = constants(fit("embedding", graph(inputs, outputs)))
    assert (found["OUTPUT"], found["POOLING"]) == (output, pooling)
    names = (found["TOKENS"], found["MASK"], found["SEGMENTS"], found["POSITIONS"])
    assert names == ("input_ids", "", "token_type_ids", "")


def test_a_recurrent_graph_of_sound_is_told_by_the_states_that_come_back() -> None:
    """As Silero VAD declares itself."""
    vad = graph(
        [
            tensor("input", "FP32", "N", "S"),
            tensor("state", "FP32", 2, "N", 128),
            tensor("sr", "INT64"),
        ],
        [tensor("output", "FP32", "N", 1), tensor("stateN", "FP32", "a", "b", "c")],
    )
    fitted = fit("audio", vad)
    found = constants(fitted)
    assert (found["INPUT"], found["OUTPUTS"]) == ("input", ("output",))
    assert found["STATES"] == {"stateN": "state"}
    assert found["STATE_SHAPES"] == {"state": (2, 1, 128)}
    assert found["SCALARS"] == {"sr": 16000}
    assert [t.name for t in fitted.inputs] == ["audio", "state"]
    assert fitted.inputs[1].shape == [256]
    assert fitted.ranges["model"]["N"] == Range(1, 1, 1)


def test_a_fixed_window_is_the_graphs_own() -> None:
    fitted = fit("audio", graph([tensor("x", "FP32", 1, 1, 15600)], [tensor("y", "FP32", 1, 521)]))
    found = constants(fitted)
    assert (found["WINDOW"], found["HOP"], found["SHAPE"]) == (15600, 15600, (1, 15600))
    assert fitted.outputs[0].shape == [-1, 521]


def test_a_table_of_values_has_no_labels() -> None:
    fitted = fit(
        "tabular", graph([tensor("x", "FP32", "N", 4)], [tensor("variable", "FP32", "N", 1)])
    )
    assert constants(fitted)["OUTPUTS"] == {"value": "variable"}
    assert constants(fitted)["LABELS"] == ""
    assert fitted.assets == {"columns.txt": "column_1\ncolumn_2\ncolumn_3\ncolumn_4\n"}


def test_columns_that_are_inputs_are_inputs_of_the_interface() -> None:
    columns = [tensor("age", "FP32", "N", 1), tensor("city", "BYTES", "N", 1)]
    outputs = [tensor("label", "BYTES", "N"), tensor("probabilities", "FP32", "N", 2)]
    fitted = fit("tabular", graph(columns, outputs))
    assert [(t.name, t.datatype, t.shape) for t in fitted.inputs] == [
        ("age", "FP32", [-1]),
        ("city", "BYTES", [-1]),
    ]
    assert "tabular/pipeline_columns.py" in fitted.code


# --- constants ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", '"x"'),
        ('say "x"', "'say \"x\"'"),
        ("a\\b", "'a\\\\b'"),
        ((1,), "(1,)"),
        ((1, "a"), '(1, "a")'),
        ({"a": (1, 2)}, '{"a": (1, 2)}'),
        (True, "True"),
        (0.5, "0.5"),
    ],
)
def test_values_are_written_as_python(value: object, text: str) -> None:
    assert python_value(value) == text
    assert eval(text) == value


def test_a_comment_behind_a_constant_stays() -> None:
    text = source_of("classification/pipeline.py", {"LAYOUT": "NHWC"})
    assert '\nLAYOUT = "NHWC"  # or "NHWC"\n' in text


def test_a_constant_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError, match="expected one line that sets NOTHING, found 0"):
        source_of("classification/pipeline.py", {"NOTHING": 1})
