"""The template of reading text in pictures: graphs det, rec, and cls where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superbrain.cli.template.fitting import (
    FLOATS,
    ONE,
    Fitted,
    GraphFile,
    misfit,
    ranges_by_axis,
)
from superbrain.cli.template.pictures import IMAGE, PIXELS_ASIDE, SHARED
from superbrain.domain.manifest import Close, Exact, GraphTensor, InterfaceTensor, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

_STRIPS = Range(min=1, opt=6, max=6)
_DET_SIDE = Range(min=32, opt=736, max=1984)
_REC_WIDTH = Range(min=320, opt=640, max=2560)
_CLS_SIZE = (48, 192)
_MODULES = ("pipeline", "detect", "crop", "upright", "recognise")


def fit_ocr(graphs: Mapping[str, GraphFile]) -> Fitted:
    """A picture in, lines of text with scores and boxes out."""
    det, rec, cls = graphs["det"], graphs["rec"], graphs.get("cls")
    _check(det, "probabilities of text [1, 1, H, W]", rank=4)
    height = _check(rec, "scores of characters [N, positions, characters]", rank=3).shape[2]
    ranges = {
        "det": ranges_by_axis(det.inputs, {0: ONE, 2: _DET_SIDE, 3: _DET_SIDE}),
        "rec": ranges_by_axis(rec.inputs, {0: _STRIPS, 2: Range(48, 48, 48), 3: _REC_WIDTH}),
    }
    if cls is not None:
        _check(cls, "scores of 0 and 180 degrees [N, 2]", rank=2)
        rows, columns = (Range(size, size, size) for size in _CLS_SIZE)
        ranges["cls"] = ranges_by_axis(cls.inputs, {0: _STRIPS, 2: rows, 3: columns})
    dictionary = "" if "character" in rec.metadata else "dictionary.txt"
    return Fitted(
        description="Finds the lines of text in a picture and reads them.",
        code={f"ocr/{name}.py": f"{name}.py" for name in _MODULES} | SHARED,
        constants={
            "pipeline.py": {"CLS": "" if cls is None else "cls", "DICTIONARY": dictionary},
            "crop.py": {"STRIP_HEIGHT": height if isinstance(height, int) else 48},
            "upright.py": {} if cls is None else _upright(cls),
        },
        assets={dictionary: _placeholder(rec)} if dictionary else {},
        ranges=ranges,
        inputs=[IMAGE],
        outputs=[
            InterfaceTensor("lines", "BYTES", [-1], "the lines of text, in reading order"),
            InterfaceTensor("scores", "FP32", [-1], "how sure the reading of each line is, 0 to 1"),
            InterfaceTensor(
                "boxes",
                "FP32",
                [-1, 4, 2],
                "each line's corners (x, y) in pixels, clockwise from the top left",
            ),
        ],
        tolerances={
            "lines": Exact(),
            "scores": Close(rtol=0.0, atol=0.02),
            "boxes": Close(rtol=0.0, atol=1.0),
        },
        aside=PIXELS_ASIDE,
    )


def _check(graph: GraphFile, output: str, rank: int) -> GraphTensor:
    """Give the graph's only input; refuse a graph of another kind."""
    tensors = [*graph.inputs, *graph.outputs]
    expected = f"an input [1, 3, H, W] and an output of {output}, both of FP32"
    if len(tensors) != 2 or {tensor.datatype for tensor in tensors} - set(FLOATS[:1]):
        misfit(graph, expected, tensors)
    given, found = tensors
    if len(given.shape) != 4 or given.shape[1] == 1 or len(found.shape) != rank:
        misfit(graph, expected, tensors)
    return given


def _upright(cls: GraphFile) -> dict[str, object]:
    """Take the sizes that the cls graph fixes."""
    batch, _, _, width = cls.inputs[0].shape
    fixed = {"BATCH": batch, "WIDTH": width}
    return {name: size for name, size in fixed.items() if isinstance(size, int)}


def _placeholder(rec: GraphFile) -> str:
    """A dictionary to be replaced, of the size that the graph wants."""
    classes = rec.outputs[0].shape[-1]
    count = classes - 1 if isinstance(classes, int) else 1
    return "".join(f"{chr(0x4E00 + index)}\n" for index in range(count))
