"""The template of tables: one input of all columns, or an input for each column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.cli.template.fitting import (
    FLOATS,
    NEAR,
    Fitted,
    GraphFile,
    labels_text,
    misfit,
    ranges_by_axis,
)
from superbrain.domain.manifest import Exact, GraphTensor, InterfaceTensor, Range, Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROWS = Range(min=1, opt=16, max=4096)
_LABEL_DATATYPES = ("INT64", "INT32", "BYTES")
_SHARED = {"tabular/rows.py": "rows.py", "shared/sizes.py": "sizes.py"}
_EXPECTED_OUTPUTS = (
    "outputs of a table: probabilities [rows, classes] with or without labels [rows], "
    "or one of values [rows] or [rows, 1]"
)


def fit_tabular(graphs: Mapping[str, GraphFile]) -> Fitted:
    """Rows of columns in, labels with probabilities or values out."""
    (graph,) = graphs.values()
    outputs, classes = _outputs(graph)
    labels = {} if "value" in outputs else {"labels.txt": labels_text(graph, classes)}
    constants: dict[str, object] = {
        "GRAPH": graph.name,
        "OUTPUTS": outputs,
        "LABELS": "labels.txt" if labels else "",
    }
    matrix = _matrix(graph)
    if matrix is None:
        code, columns, assets, inputs = "pipeline_columns.py", {}, {}, _column_inputs(graph)
    else:
        code, columns, inputs = "pipeline.py", {"INPUT": matrix.name}, _MATRIX_INPUTS
        assets = {"columns.txt": _columns_text(matrix)}
    return Fitted(
        description="Answers for every row of a table.",
        code={f"tabular/{code}": "pipeline.py", **_SHARED},
        constants={"pipeline.py": constants | columns},
        assets=labels | assets,
        ranges={graph.name: ranges_by_axis(graph.inputs, {0: _ROWS})},
        inputs=inputs,
        outputs=_answers(outputs, classes),
        tolerances=_tolerances(outputs),
    )


_MATRIX_INPUTS = [
    InterfaceTensor("columns", "BYTES", [-1], "the names of the columns, in any order"),
    InterfaceTensor("features", "FP64", [-1, -1], "rows of numbers; what is missing is NaN"),
]


def _matrix(graph: GraphFile) -> GraphTensor | None:
    """Give the one input of all columns; None if each has its own."""
    first = graph.inputs[0]
    if len(graph.inputs) == 1 and len(first.shape) == 2 and first.shape[1] != 1:
        if first.datatype not in FLOATS[::2]:
            misfit(graph, "an input [rows, columns] of FP32 or FP64", graph.inputs)
        return first
    if any(len(t.shape) not in {1, 2} or t.shape[1:] not in ([], [1]) for t in graph.inputs):
        misfit(graph, "an input [rows, columns], or [rows, 1] for every column", graph.inputs)
    return None


def _column_inputs(graph: GraphFile) -> list[InterfaceTensor]:
    return [InterfaceTensor(t.name, t.datatype, [-1], "one for each row") for t in graph.inputs]


def _columns_text(matrix: GraphTensor) -> str:
    count = matrix.shape[1] if isinstance(matrix.shape[1], int) else 1
    return "".join(f"column_{index}\n" for index in range(1, count + 1))


def _outputs(graph: GraphFile) -> tuple[dict[str, str], int | str | None]:
    """Tell which output is what, and how many classes there are."""
    label = next((t for t in graph.outputs if _is_label(t)), None)
    floats = [t for t in graph.outputs if t.datatype in FLOATS]
    tables = [t for t in floats if len(t.shape) == 2 and t.shape[1] != 1]
    if tables:
        chosen = {"label": label.name} if label else {}
        return chosen | {"probabilities": tables[0].name}, tables[0].shape[1]
    if not floats or len(floats[0].shape) > 2 or label is not None:
        misfit(graph, _EXPECTED_OUTPUTS, graph.outputs)
    return {"value": floats[0].name}, None


def _is_label(tensor: GraphTensor) -> bool:
    return tensor.datatype in _LABEL_DATATYPES and len(tensor.shape) in {1, 2}


def _answers(outputs: Mapping[str, str], classes: int | str | None) -> Sequence[InterfaceTensor]:
    if "value" in outputs:
        return [InterfaceTensor("value", "FP32", [-1, 1], "the value of each row")]
    count = classes if isinstance(classes, int) else -1
    return [
        InterfaceTensor("label", "BYTES", [-1], "the likeliest class of each row"),
        InterfaceTensor("probabilities", "FP32", [-1, count], "of each class, for each row"),
    ]


def _tolerances(outputs: Mapping[str, str]) -> dict[str, Tolerance]:
    return {"value": NEAR} if "value" in outputs else {"label": Exact(), "probabilities": NEAR}
