"""Detection: a picture in; boxes, scores and labels of what is in it out, best first.

Responsible for placing the picture in the graph's input, for reading either of two common forms of
answer, for suppressing boxes of one class that overlap, and for boxes in pixels of the caller's
picture. Change the constants to those of your training.
"""

import cv2
import numpy as np
from picture import PictureInput, boxes_on_picture, decode, letterbox
from sizes import tensor_named

GRAPH = "model"
INPUT = "images"
LAYOUT = "NCHW"  # or "NHWC"
LABELS = "labels.txt"  # in assets/, one label a line, in the order of the network's classes

# Form "grid": one output BOXES with 4 numbers of a box and a score for each class of every
# candidate. Form "lists": outputs BOXES, SCORES and CLASSES, as graphs give that suppress overlaps.
FORM = "grid"
BOXES = "output0"
SCORES = ""
CLASSES = ""
CHANNELS_AXIS = 1  # of "grid": 1 is [N, 4 + classes, candidates], 2 is [N, candidates, 4 + classes]
OBJECTNESS = False  # of "grid": a fifth number before the classes that multiplies their scores
BOX = "cxcywh"  # centre and size; "xyxy" or "yxyx": two corners
NORMALISED = False  # boxes are 0 to 1 of the input instead of pixels of it

SIDE = 640  # of graphs with open sizes: what the long side of a picture is scaled to …
MULTIPLE = 32  # … and what the sides of the frame around it are multiples of
FILL = 114  # the grey of the frame, 0 to 255
CENTRED = True  # else the picture lies at the top left of the frame
COLOUR = "RGB"  # or "BGR"
SCALE = 1 / 255
MEAN = (0.0,)  # after scaling: (pixel * SCALE - MEAN) / STD; one number, or one for each channel
STD = (1.0,)

MIN_SCORE = 0.25
MAX_OVERLAP = 0.45  # intersection over union of two boxes of one class; 1.0 suppresses none
MAX_CANDIDATES = 10_000  # the best so many go into suppression
MAX_BOXES = 300


class Pipeline:
    """Boxes go back to the picture by where it was placed, so `run`: one call from both ends."""

    def __init__(self, bundle):
        self.input = PictureInput(
            bundle.graph(GRAPH), INPUT, LAYOUT, colour=COLOUR, scale=SCALE, mean=MEAN, std=STD
        )
        self.labels = bundle.text(LABELS).splitlines()
        if FORM == "grid":
            check_labels(self.labels, bundle.graph(GRAPH))

    def run(self, request, graphs):
        pixels = decode(request["image"])
        height, width = pixels.shape[:2]
        frame = self.input.frame(height, width, side=SIDE, multiple=MULTIPLE)
        framed, placement = letterbox(pixels, *frame, FILL, centred=CENTRED)
        outputs = graphs[GRAPH]({INPUT: self.input.tensor(framed)})
        boxes, scores, classes = candidates(outputs)
        boxes = corners(boxes, *framed.shape[:2])
        kept = suppressed(boxes, scores, classes)
        return {
            "boxes": boxes_on_picture(boxes[kept], placement, height, width),
            "scores": scores[kept],
            "labels": [self.label(index) for index in classes[kept]],
        }

    def label(self, index):
        if not 0 <= index < len(self.labels):
            raise IndexError(f"assets/{LABELS}: expected a label for class {index}, found none")
        return self.labels[index]


def check_labels(labels, graph):
    """Raise ValueError unless there is one label for every class of a "grid"."""
    channels = tensor_named(BOXES, graph.outputs).shape[CHANNELS_AXIS]
    if isinstance(channels, int) and len(labels) != channels - 4 - OBJECTNESS:
        raise ValueError(
            f"assets/{LABELS}: expected {channels - 4 - OBJECTNESS} labels, found {len(labels)}"
        )


def candidates(outputs):
    """Boxes [count, 4] as the graph gives them, their scores and classes, all above MIN_SCORE."""
    if FORM == "grid":
        boxes, scores, classes = of_grid(outputs[BOXES][0])
    else:
        boxes = outputs[BOXES].reshape(-1, 4)
        scores, classes = outputs[SCORES].ravel(), outputs[CLASSES].ravel()
    good = np.flatnonzero(scores >= MIN_SCORE)
    best = good[np.argsort(-scores[good], kind="stable")][:MAX_CANDIDATES]
    return (
        boxes[best].astype(np.float32),
        scores[best].astype(np.float32),
        classes[best].astype(np.int64),
    )


def of_grid(grid):
    """Boxes, scores and classes of every candidate of one "grid"."""
    rows = grid.T if CHANNELS_AXIS == 1 else grid
    scores = rows[:, 5:] * rows[:, 4:5] if OBJECTNESS else rows[:, 4:]
    return rows[:, :4], scores.max(axis=1), scores.argmax(axis=1)


def corners(boxes, rows, columns):
    """Boxes as (left, top, right, bottom) in pixels of the frame."""
    if NORMALISED:
        size = [rows, columns] if BOX == "yxyx" else [columns, rows]
        boxes = boxes * np.array(size * 2, np.float32)
    if BOX != "cxcywh":
        return boxes if BOX == "xyxy" else boxes[:, [1, 0, 3, 2]]
    centres, halves = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def suppressed(boxes, scores, classes):
    """Indices of the boxes that stay, best first: of one class none overlaps a better one much."""
    if not len(boxes) or MAX_OVERLAP >= 1:
        return np.arange(len(boxes))[:MAX_BOXES]
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if hasattr(cv2.dnn, "NMSBoxesBatched"):
        kept = cv2.dnn.NMSBoxesBatched(
            sizes.tolist(), scores.tolist(), classes.tolist(), 0.0, MAX_OVERLAP
        )
    else:  # classes laid far apart never overlap
        apart = (boxes.max() - boxes.min() + 1) * classes[:, np.newaxis]
        sizes[:, :2] += apart
        kept = cv2.dnn.NMSBoxes(sizes.tolist(), scores.tolist(), 0.0, MAX_OVERLAP)
    return np.sort(np.array(kept, np.int64).ravel())[:MAX_BOXES]
