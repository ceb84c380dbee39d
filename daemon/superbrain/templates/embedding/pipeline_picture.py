"""Embedding of pictures: a picture in, a vector of length 1 out; alike pictures, near vectors.

Responsible for what the network was trained to see, for pooling and for the length. Change the
constants to those of your training. Sizes are those of the graph: where it leaves them open, `opt`
of bundle.toml.
"""

from picture import PictureInput, decode, fitted
from vectors import pooled, unit

GRAPH = "model"
INPUT = "input"
OUTPUT = "output"
LAYOUT = "NCHW"  # or "NHWC"
POOLING = "none"  # the graph has done it; "mean" or "first" of [N, positions, features]

FIT = "crop"  # the middle of the picture; "letterbox": all of it, with bars; "stretch": all of it
RESIZE_SHORT = 256  # for "crop": the short side is scaled to this first
FILL = 0  # for "letterbox": the grey of the bars, 0 to 255
COLOUR = "RGB"  # or "BGR"
SCALE = 1 / 255
MEAN = (0.485, 0.456, 0.406)  # after scaling: (pixel * SCALE - MEAN) / STD
STD = (0.229, 0.224, 0.225)


class Pipeline:
    """One graph, so `preprocess` and `postprocess`: the host runs the graph in between."""

    def __init__(self, bundle):
        self.input = PictureInput(
            bundle.graph(GRAPH), INPUT, LAYOUT, colour=COLOUR, scale=SCALE, mean=MEAN, std=STD
        )

    def preprocess(self, request):
        pixels = fitted(decode(request["image"]), self.input, FIT, short=RESIZE_SHORT, fill=FILL)
        return {INPUT: self.input.tensor(pixels)}

    def postprocess(self, outputs, request):  # noqa: ARG002
        return {"embedding": unit(pooled(outputs[OUTPUT], POOLING))[0]}
