"""What a template makes of graphs: the terms that all templates share.

A fit is given what the files say (`GraphFile`) and answers with all that goes into the author's
folder beside them (`Fitted`), or with `misfit`: what was expected of the file, what was found, and
what to do.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from superbrain.domain.errors import RecipeError
from superbrain.domain.manifest import (
    Close,
    GraphTensor,
    InterfaceTensor,
    Range,
    Tolerance,
)
from superbrain.domain.tensor_fit import spell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FLOATS = ("FP32", "FP16", "FP64")
INTEGERS = ("INT64", "INT32")
NEAR = Close(rtol=1e-3, atol=1e-4)
BATCH = Range(min=1, opt=1, max=8)
ONE = Range(min=1, opt=1, max=1)
# Under these keys exporters leave the names of the classes in an ONNX file.
_NAMES_KEYS = ("names", "labels", "classes", "id2label", "character")
_PLACEHOLDERS = 2


class GraphFile(NamedTuple):
    """A graph as its file declares it, sizes named.

    `last_operator` gives the operator that makes an output, such as "Softmax"; `rows_looked_up` the
    size of the table that an input of indices is for, 0 where there is none.
    """

    name: str
    path: str
    inputs: Sequence[GraphTensor]
    outputs: Sequence[GraphTensor]
    metadata: Mapping[str, str]
    last_operator: Callable[[str], str]
    rows_looked_up: Callable[[str], int]


class Fitted(NamedTuple):
    """All that a template adds to the graphs.

    `code` is file of the template -> name in code/, `constants` is file in code/ -> what to set
    there, `ranges` is graph -> bounds of sizes, `aside` lines of comment for the interface.
    """

    description: str
    code: Mapping[str, str]
    constants: Mapping[str, Mapping[str, object]]
    assets: Mapping[str, str]
    ranges: Mapping[str, Mapping[str, Range]]
    inputs: Sequence[InterfaceTensor]
    outputs: Sequence[InterfaceTensor]
    tolerances: Mapping[str, Tolerance]
    aside: Sequence[str] = ()


def misfit(graph: GraphFile, expected: str, found: Sequence[GraphTensor] | str) -> NoReturn:
    """Refuse a graph: it is not of the kind that the template is for."""
    if not isinstance(found, str):
        found = ", ".join(f"{t.name} {spell(t.datatype, t.shape)}" for t in found) or "none"
    raise RecipeError(
        f"{graph.path}: expected {expected}, found {found}",
        reason="RECIPE_TEMPLATE",
        mend="Take another --template, or --pipeline for a code/pipeline.py to fill in",
    )


def one_of(
    graph: GraphFile,
    expected: str,
    tensors: Sequence[GraphTensor],
    fits: Callable[[GraphTensor], bool],
) -> GraphTensor:
    """Give the first of the tensors that fits."""
    for tensor in tensors:
        if fits(tensor):
            return tensor
    misfit(graph, expected, tensors)


def ranges_by_axis(tensors: Sequence[GraphTensor], ranges: Mapping[int, Range]) -> dict[str, Range]:
    """Bounds for the open sizes of these axes."""
    return {
        size: ranges[axis]
        for tensor in tensors
        for axis, size in enumerate(tensor.shape)
        if isinstance(size, str) and axis in ranges
    }


def labels_text(graph: GraphFile, count: int | str | None) -> str:
    """Give assets/labels.txt: the names in the file's metadata, else a line to edit per class."""
    wanted = count if isinstance(count, int) else None
    for key in _NAMES_KEYS:
        names = _names_in(graph.metadata.get(key, ""))
        if names and (wanted is None or len(names) == wanted):
            return "\n".join(names) + "\n"
    return "".join(f"class_{index}\n" for index in range(wanted or _PLACEHOLDERS))


def names_count(graph: GraphFile) -> int:
    """Tell how many classes the file's metadata names; 0 if it names none."""
    return next(
        (len(found) for key in _NAMES_KEYS if (found := _names_in(graph.metadata.get(key, "")))), 0
    )


def _names_in(text: str) -> list[str]:
    """Names as exporters write them: a dict or list in Python's or JSON's spelling, or lines."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text.splitlines()
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=int)]
    return [" ".join(str(name).split()) for name in value] if isinstance(value, list) else []
