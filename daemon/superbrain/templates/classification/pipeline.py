"""Classification: a picture in, its likeliest labels with their confidences out.

Responsible for what the network was trained to see and for turning its scores into labels. Change
the constants to those of your training; what goes in and out stands in bundle.toml. Sizes are those
of the graph: where it leaves them open, `opt` of bundle.toml.
"""

import numpy as np
from picture import PictureInput, decode, fitted
from sizes import tensor_named

GRAPH = "model"
INPUT = "input"
OUTPUT = "output"
LAYOUT = "NCHW"  # or "NHWC"
LABELS = "labels.txt"  # in assets/, one label a line, in the order of the network's classes

FIT = "crop"  # the middle of the picture; "letterbox": all of it, with bars; "stretch": all of it
RESIZE_SHORT = 256  # for "crop": the short side is scaled to this first
FILL = 0  # for "letterbox": the grey of the bars, 0 to 255
COLOUR = "RGB"  # or "BGR"
SCALE = 1 / 255
MEAN = (0.485, 0.456, 0.406)  # after scaling: (pixel * SCALE - MEAN) / STD
STD = (0.229, 0.224, 0.225)

ACTIVATION = "softmax"  # the graph gives logits; "sigmoid": of independent classes; "none": neither
TOP = 5  # labels in an answer, or all if there are fewer


class Pipeline:
    """One graph, so `preprocess` and `postprocess`: the host runs the graph in between."""

    def __init__(self, bundle):
        graph = bundle.graph(GRAPH)
        self.input = PictureInput(
            graph, INPUT, LAYOUT, colour=COLOUR, scale=SCALE, mean=MEAN, std=STD
        )
        self.labels = read_labels(bundle.text(LABELS), graph)

    def preprocess(self, request):
        pixels = fitted(decode(request["image"]), self.input, FIT, short=RESIZE_SHORT, fill=FILL)
        return {INPUT: self.input.tensor(pixels)}

    def postprocess(self, outputs, request):  # noqa: ARG002
        confidences = ACTIVATIONS[ACTIVATION](outputs[OUTPUT][0].ravel().astype(np.float32))
        best = np.argsort(-confidences, kind="stable")[:TOP]
        return {"labels": [self.labels[i] for i in best], "confidences": confidences[best]}


def read_labels(text, graph):
    """One label for every class of the graph."""
    labels = text.splitlines()
    classes = tensor_named(OUTPUT, graph.outputs).shape[1]
    if isinstance(classes, int) and len(labels) != classes:
        raise ValueError(f"assets/{LABELS}: expected {classes} labels, found {len(labels)}")
    return labels


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid, "none": lambda scores: scores}
