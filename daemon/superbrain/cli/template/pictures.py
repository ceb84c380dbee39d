"""Templates of pictures: classification, detection, segmentation, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from superbrain.cli.template.fitting import (
    BATCH,
    FLOATS,
    INTEGERS,
    NEAR,
    ONE,
    Fitted,
    GraphFile,
    labels_text,
    misfit,
    names_count,
    one_of,
    ranges_by_axis,
)
from superbrain.domain.manifest import Close, Exact, GraphTensor, InterfaceTensor, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE = InterfaceTensor("image", "BYTES", [], "a JPEG or PNG file")
# A tensor's size as written in bundle.toml beside the interface, for authors who send pixels.
PIXELS_ASIDE = (
    "Pixels instead of a file: take this input, and nothing else changes.",
    '{ name = "image", datatype = "UINT8", shape = [-1, -1, 3], description = "RGB pixels" }',
)
SHARED = {"shared/picture.py": "picture.py", "shared/sizes.py": "sizes.py"}
_CHANNELS = {"NCHW": 1, "NHWC": 3}
_SIDES = {"NCHW": (2, 3), "NHWC": (1, 2)}
_IMAGE_DATATYPES = (*FLOATS, "UINT8")
_USUAL_SIDE = 224
# Short side to crop, as torchvision, timm and PaddleClas have it for most networks.
_SHORT_TO_CROP = 256 / 224
_BOX_NUMBERS = 4


class Picture(NamedTuple):
    """The picture input of a graph."""

    tensor: GraphTensor
    layout: str

    @property
    def channels(self) -> int | str:
        return self.tensor.shape[_CHANNELS[self.layout]]

    @property
    def sides(self) -> list[int | str]:
        return [self.tensor.shape[axis] for axis in _SIDES[self.layout]]

    def ranges(self, batch: Range, side: Range) -> dict[str, Range]:
        """Give bounds for whatever the input leaves open."""
        axes = dict.fromkeys(_SIDES[self.layout], side) | {0: batch}
        channels = {_CHANNELS[self.layout]: Range(3, 3, 3)}
        return ranges_by_axis([self.tensor], axes | channels)

    def constants(self, graph: GraphFile) -> dict[str, object]:
        """Give what every template of pictures is told of its input."""
        found: dict[str, object] = {
            "GRAPH": graph.name,
            "INPUT": self.tensor.name,
            "LAYOUT": self.layout,
        }
        return found | ({"MEAN": (0.5,), "STD": (0.5,)} if self.channels == 1 else {})


def picture_of(graph: GraphFile) -> Picture:
    """Find the picture that a graph takes."""
    expected = "one input, a picture of [1, 3, H, W] or [1, H, W, 3] (or 1 channel)"
    if len(graph.inputs) != 1:
        misfit(graph, expected, graph.inputs)
    (tensor,) = graph.inputs
    fits = len(tensor.shape) == 4 and tensor.datatype in _IMAGE_DATATYPES
    if not fits or tensor.shape[0] not in {1, *(s for s in tensor.shape if isinstance(s, str))}:
        misfit(graph, expected, graph.inputs)
    layouts = [layout for layout, axis in _CHANNELS.items() if tensor.shape[axis] in {1, 3}]
    if not layouts and isinstance(tensor.shape[1], str):  # all sizes are open: the commonest
        layouts = ["NCHW"]
    if not layouts:
        misfit(graph, expected, graph.inputs)
    return Picture(tensor, layouts[0])


def one_size(picture: Picture) -> tuple[dict[str, Range], int]:
    """Bounds of a graph that is shown one size, and the short side to crop it from."""
    fixed = [side for side in picture.sides if isinstance(side, int)]
    side = Range(*[fixed[0] if fixed else _USUAL_SIDE] * 3)
    return picture.ranges(BATCH, side), round(max([*fixed, side.opt]) * _SHORT_TO_CROP)


def fit_classification(graphs: Mapping[str, GraphFile]) -> Fitted:
    """A picture in, labels and confidences out."""
    (graph,) = graphs.values()
    picture = picture_of(graph)
    output = one_of(
        graph,
        "an output of scores, [1, classes] of floats",
        graph.outputs,
        lambda t: t.datatype in FLOATS and (len(t.shape) == 2 or t.shape[2:] == [1, 1]),
    )
    ranges, short = one_size(picture)
    activated = graph.last_operator(output.name) in {"Softmax", "Sigmoid", "HardSigmoid"}
    return Fitted(
        description="Tells what a picture shows.",
        code={"classification/pipeline.py": "pipeline.py", **SHARED},
        constants={
            "pipeline.py": picture.constants(graph)
            | {
                "OUTPUT": output.name,
                "RESIZE_SHORT": short,
                "ACTIVATION": "none" if activated else "softmax",
            }
        },
        assets={"labels.txt": labels_text(graph, output.shape[1])},
        ranges={graph.name: ranges},
        inputs=[IMAGE],
        outputs=[
            InterfaceTensor("labels", "BYTES", [-1], "the likeliest labels, best first"),
            InterfaceTensor("confidences", "FP32", [-1], "how sure each of them is, 0 to 1"),
        ],
        tolerances={"labels": Exact(), "confidences": NEAR},
        aside=PIXELS_ASIDE,
    )


def fit_detection(graphs: Mapping[str, GraphFile]) -> Fitted:
    """A picture in, boxes with scores and labels out."""
    (graph,) = graphs.values()
    picture = picture_of(graph)
    constants, classes = _grid(graph) or _lists(graph)
    return Fitted(
        description="Finds things in a picture.",
        code={"detection/pipeline.py": "pipeline.py", **SHARED},
        constants={"pipeline.py": picture.constants(graph) | constants},
        assets={"labels.txt": labels_text(graph, classes)},
        ranges={graph.name: picture.ranges(ONE, Range(32, 640, 640))},
        inputs=[IMAGE],
        outputs=[
            InterfaceTensor(
                "boxes", "FP32", [-1, 4], "left, top, right, bottom in pixels of the picture"
            ),
            InterfaceTensor("scores", "FP32", [-1], "how sure each of them is, best first"),
            InterfaceTensor("labels", "BYTES", [-1], "what is in each of them"),
        ],
        tolerances={
            "boxes": Close(rtol=0.0, atol=1.0),
            "scores": Close(rtol=0.0, atol=1e-2),
            "labels": Exact(),
        },
        aside=PIXELS_ASIDE,
    )


def _grid(graph: GraphFile) -> tuple[dict[str, object], int | None] | None:
    """Constants and classes of [N, 4 + classes, candidates] or its transpose; None for another."""
    found = [t for t in graph.outputs if t.datatype in FLOATS and len(t.shape) == 3]
    if (len(graph.outputs) > 1 and any(t.shape[-1] == _BOX_NUMBERS for t in found)) or not found:
        return None
    output = found[0]
    sizes = {axis: size for axis in (1, 2) if isinstance(size := output.shape[axis], int)}
    if not sizes:
        return None
    axis = min(sizes, key=lambda one: sizes[one])
    named = names_count(graph)
    # Networks that give candidates first are mostly of the older kind, which has objectness.
    objectness = sizes[axis] - 5 == named if named else axis == 2
    classes = sizes[axis] - _BOX_NUMBERS - objectness
    if classes < 1:
        return None
    return {
        "FORM": "grid",
        "BOXES": output.name,
        "CHANNELS_AXIS": axis,
        "OBJECTNESS": objectness,
    }, classes


def _lists(graph: GraphFile) -> tuple[dict[str, object], int | None]:
    """Constants of outputs boxes, scores and labels."""
    expected = (
        "outputs of a detector: one of [1, 4 + classes, candidates] (or its transpose), "
        "or boxes [count, 4], scores [count] and labels [count]"
    )
    boxes = one_of(
        graph,
        expected,
        graph.outputs,
        lambda t: t.datatype in FLOATS and 1 < len(t.shape) <= 3 and t.shape[-1] == _BOX_NUMBERS,
    )
    lists = [t for t in graph.outputs if t is not boxes and 1 <= len(t.shape) <= 2]
    whole = [t for t in lists if t.datatype in INTEGERS and "num" not in t.name.lower()]
    said = [t for t in lists if any(word in t.name.lower() for word in ("class", "label"))]
    classes = next(iter([*said, *whole]), None)
    scores = next((t for t in lists if t is not classes and t.datatype in FLOATS), None)
    if classes is None or scores is None:
        misfit(graph, expected, graph.outputs)
    return {
        "FORM": "lists",
        "BOXES": boxes.name,
        "SCORES": scores.name,
        "CLASSES": classes.name,
        "BOX": "xyxy",
        "MAX_OVERLAP": 1.0,
    }, None


def fit_segmentation(graphs: Mapping[str, GraphFile]) -> Fitted:
    """A picture in, the class of every pixel out."""
    (graph,) = graphs.values()
    picture = picture_of(graph)
    output = one_of(
        graph,
        "an output of scores [1, classes, H, W] or [1, H, W, classes], or of classes [1, H, W]",
        graph.outputs,
        lambda t: (
            (t.datatype in FLOATS and len(t.shape) == 4)
            or (t.datatype in {*INTEGERS, "UINT8"} and len(t.shape) in {3, 4})
        ),
    )
    constants, classes = _planes(graph, output, picture)
    return Fitted(
        description="Tells of every pixel of a picture what it belongs to.",
        code={"segmentation/pipeline.py": "pipeline.py", **SHARED},
        constants={"pipeline.py": picture.constants(graph) | constants},
        assets={"labels.txt": labels_text(graph, classes)},
        ranges={graph.name: picture.ranges(ONE, Range(32, 512, 2048))},
        inputs=[IMAGE],
        outputs=[
            InterfaceTensor("mask", "UINT8", [-1, -1], "the class of every pixel, [height, width]"),
            InterfaceTensor("labels", "BYTES", [-1], "the labels of the classes that occur"),
            InterfaceTensor("shares", "FP32", [-1], "which share of the picture each of them has"),
        ],
        tolerances={"mask": Exact(), "labels": Exact(), "shares": NEAR},
        aside=PIXELS_ASIDE,
    )


def _planes(
    graph: GraphFile, output: GraphTensor, picture: Picture
) -> tuple[dict[str, object], int | str | None]:
    if output.datatype not in FLOATS:
        return {"OUTPUT": output.name, "FORM": "classes"}, None
    axis = _CHANNELS[picture.layout]
    constants: dict[str, object] = {"OUTPUT": output.name, "CLASS_AXIS": axis}
    if output.shape[axis] != 1:
        return constants | {"FORM": "scores"}, output.shape[axis]
    probabilities = graph.last_operator(output.name) in {"Sigmoid", "HardSigmoid"}
    return constants | {"FORM": "binary", "THRESHOLD": 0.5 if probabilities else 0.0}, 2
