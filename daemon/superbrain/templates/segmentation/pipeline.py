"""Segmentation: a picture in, the class of every pixel of it out.

Responsible for showing the graph the picture (at its own size with padding, where the graph leaves
sizes open) and for a mask of exactly the picture's size, whatever size the graph's scores have.
Change the constants to those of your training.
"""

import cv2
import numpy as np
from picture import PictureInput, decode, letterbox
from sizes import tensor_named

GRAPH = "model"
INPUT = "input"
OUTPUT = "output"
LAYOUT = "NCHW"  # or "NHWC"
LABELS = "labels.txt"  # in assets/, one label a line, in the order of the network's classes

# "scores": a score for every class and pixel, the largest wins; "binary": one logit or probability
# for every pixel; "classes": the class itself, as graphs give that end in ArgMax.
FORM = "scores"
CLASS_AXIS = 1  # of "scores" and "binary": 1 is [N, classes, H, W], 3 is [N, H, W, classes]
THRESHOLD = 0.0  # of "binary": a pixel above it is of class 1; 0 for logits, 0.5 for probabilities

SIDE = None  # of graphs with open sizes: what the long side is scaled to; None leaves it …
MULTIPLE = 32  # … and what the sides are padded to multiples of
FILL = 0  # the grey of the padding, 0 to 255
COLOUR = "RGB"  # or "BGR"
SCALE = 1 / 255
MEAN = (0.485, 0.456, 0.406)  # after scaling: (pixel * SCALE - MEAN) / STD
STD = (0.229, 0.224, 0.225)


class Pipeline:
    """The mask goes back to the picture by where it was placed, so `run`."""

    def __init__(self, bundle):
        self.input = PictureInput(
            bundle.graph(GRAPH), INPUT, LAYOUT, colour=COLOUR, scale=SCALE, mean=MEAN, std=STD
        )
        self.labels = bundle.text(LABELS).splitlines()
        check_labels(self.labels, bundle.graph(GRAPH))

    def run(self, request, graphs):
        pixels = decode(request["image"])
        height, width = pixels.shape[:2]
        frame = self.input.frame(height, width, side=SIDE, multiple=MULTIPLE)
        framed, placement = letterbox(pixels, *frame, FILL, centred=False)
        output = graphs[GRAPH]({INPUT: self.input.tensor(framed)})[OUTPUT]
        mask = mask_of(planes_of(output), framed.shape[:2], placement, (height, width))
        counts = np.bincount(mask.ravel(), minlength=len(self.labels))
        present = np.flatnonzero(counts)
        return {
            "mask": mask,
            "labels": [self.labels[index] for index in present],
            "shares": (counts[present] / mask.size).astype(np.float32),
        }


def check_labels(labels, graph):
    """Raise ValueError unless there is one label for every class."""
    shape = tensor_named(OUTPUT, graph.outputs).shape
    classes = {"scores": shape[CLASS_AXIS], "binary": 2}.get(FORM)
    if len(labels) > 256 or (isinstance(classes, int) and len(labels) != classes):
        raise ValueError(
            f"assets/{LABELS}: expected {classes or 'up to 256'} labels, found {len(labels)}"
        )


def planes_of(output):
    """The graph's answer as [planes, rows, columns]: one for each class, or just one."""
    if FORM == "classes":
        return output.reshape(1, *output.shape[-2:]).astype(np.float32)
    return np.moveaxis(output[0], CLASS_AXIS - 1, 0).astype(np.float32)


def mask_of(planes, frame, placement, size):
    """The class of every pixel of the picture, uint8 [height, width].

    Scores are stretched to the picture one class at a time and the best kept, which looks smooth
    at the edges and holds three planes in memory, however many classes there are.
    """
    if FORM == "classes":
        return on_picture(planes[0], frame, placement, size, cv2.INTER_NEAREST).astype(np.uint8)
    first, *others = planes
    best = on_picture(first, frame, placement, size, cv2.INTER_LINEAR)
    if FORM == "binary":
        return (best > THRESHOLD).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    for index, plane in enumerate(others, start=1):
        scores = on_picture(plane, frame, placement, size, cv2.INTER_LINEAR)
        mask[scores > best] = index
        np.maximum(best, scores, out=best)
    return mask


def on_picture(plane, frame, placement, size, how):
    """One plane of the graph's answer without the padding, in the picture's own size."""
    rows, columns = frame
    if plane.shape != (rows, columns):
        plane = cv2.resize(plane, (columns, rows), interpolation=how)
    inside = plane[: placement.height, : placement.width]
    height, width = size
    return cv2.resize(inside, (width, height), interpolation=how)
