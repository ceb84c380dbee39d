"""The template of embeddings: of a picture, or of texts as token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.cli.template.fitting import (
    FLOATS,
    INTEGERS,
    Fitted,
    GraphFile,
    misfit,
    one_of,
    ranges_by_axis,
)
from superbrain.cli.template.pictures import IMAGE, PIXELS_ASIDE, SHARED, one_size, picture_of
from superbrain.domain.manifest import Cosine, GraphTensor, InterfaceTensor, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXTS = Range(min=1, opt=8, max=32)
_TOKENS = Range(min=1, opt=64, max=512)
_NEAR = Cosine(min=0.999)
# Words in the names of the inputs that a network of texts may have.
_ROLES = {"MASK": "mask", "SEGMENTS": "type", "POSITIONS": "position"}
# Outputs that exporters give a pooled vector in, before those that are still to be pooled.
_POOLED = ("sentence_embedding", "embedding", "text_embeds", "image_embeds")


def fit_embedding(graphs: Mapping[str, GraphFile]) -> Fitted:
    """A picture or token ids in, a vector out."""
    (graph,) = graphs.values()
    if all(tensor.datatype in INTEGERS for tensor in graph.inputs):
        return _fit_tokens(graph)
    return _fit_picture(graph)


def _fit_picture(graph: GraphFile) -> Fitted:
    picture = picture_of(graph)
    output, pooling = _output(graph)
    ranges, short = one_size(picture)
    size = output.shape[-1] if len(output.shape) < 4 else output.shape[1]
    return Fitted(
        description="Makes a vector of a picture.",
        code={"embedding/pipeline_picture.py": "pipeline.py", **SHARED, **_VECTORS},
        constants={
            "pipeline.py": picture.constants(graph)
            | {"OUTPUT": output.name, "POOLING": pooling, "RESIZE_SHORT": short}
        },
        assets={},
        ranges={graph.name: ranges},
        inputs=[IMAGE],
        outputs=[InterfaceTensor("embedding", "FP32", [_fixed(size)], "a vector of length 1")],
        tolerances={"embedding": _NEAR},
        aside=PIXELS_ASIDE,
    )


def _fit_tokens(graph: GraphFile) -> Fitted:
    roles = _roles(graph)
    output, pooling = _output(graph)
    return Fitted(
        description="Makes a vector of each text.",
        code={
            "embedding/pipeline_tokens.py": "pipeline.py",
            "shared/sizes.py": "sizes.py",
            **_VECTORS,
        },
        constants={
            "pipeline.py": {
                "GRAPH": graph.name,
                **roles,
                "OUTPUT": output.name,
                "POOLING": pooling,
                "VOCABULARY": graph.rows_looked_up(str(roles["TOKENS"])),
            }
        },
        assets={},
        ranges={graph.name: ranges_by_axis(graph.inputs, {0: _TEXTS, 1: _TOKENS})},
        inputs=[
            InterfaceTensor("tokens", "INT64", [-1, -1], "token ids, one row for each text"),
            InterfaceTensor("mask", "INT64", [-1, -1], "1 for tokens that count, else 0"),
        ],
        outputs=[
            InterfaceTensor(
                "embedding",
                "FP32",
                [-1, _fixed(output.shape[-1])],
                "a vector of length 1 for each text",
            )
        ],
        tolerances={"embedding": _NEAR},
    )


_VECTORS = {"shared/vectors.py": "vectors.py"}


def _roles(graph: GraphFile) -> dict[str, object]:
    """Tell which input takes what, by its name: {constant: input, or "" for none}."""
    expected = "inputs of token ids [N, length], with a mask, types and positions if need be"
    roles: dict[str, object] = {"TOKENS": "", **dict.fromkeys(_ROLES, "")}
    for tensor in graph.inputs:
        name = tensor.name.lower()
        role = next((role for role, word in _ROLES.items() if word in name), "TOKENS")
        if len(tensor.shape) != 2 or roles[role]:
            misfit(graph, expected, graph.inputs)
        roles[role] = tensor.name
    if not roles["TOKENS"]:
        misfit(graph, expected, graph.inputs)
    return roles


def _output(graph: GraphFile) -> tuple[GraphTensor, str]:
    """Give the output to take, and how it is to be pooled."""
    floats = [t for t in graph.outputs if t.datatype in FLOATS and len(t.shape) in {2, 3, 4}]
    named = {t.name: t for t in floats if len(t.shape) == 2}
    for name in _POOLED:
        if name in named:
            return named[name], "none"
    # A BERT's own pooler was trained for another task than likeness, so sequences come first.
    floats.sort(key=lambda tensor: len(tensor.shape) != 3)
    output = one_of(
        graph,
        "an output [N, features] or [N, positions, features] of floats",
        floats or graph.outputs,
        lambda tensor: tensor in floats,
    )
    return output, "mean" if len(output.shape) == 3 else "none"


def _fixed(size: int | str) -> int:
    return size if isinstance(size, int) else -1
