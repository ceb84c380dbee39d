"""Pictures: from what a caller sends to what a graph takes, and from its pixels back.

Responsible for decoding, for the size that a graph is shown (its own where that is fixed, else one
within the bounds of bundle.toml), for how a picture lies in that size, and for colour, scale and
layout. In between, a picture is uint8 RGB [height, width, 3].
"""

from typing import NamedTuple

import cv2
import numpy as np
from sizes import bounds, tensor_named

# Scaling a long ribbon by its short side would be huge and for nothing.
MAX_ASPECT = 20
AXES = {"NCHW": (2, 3, 1), "NHWC": (1, 2, 3)}  # of height, width and channels
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "UINT8": np.uint8}


class Placement(NamedTuple):
    """Where a picture lies in a frame: its (x, y) is at (left + x * across, top + y * down)."""

    left: int
    top: int
    width: int
    height: int
    across: float
    down: float


class PictureInput:
    """The picture that a graph takes, as bundle.toml declares it.

    `scale`, `mean` and `std` make of a pixel p the number (p * scale - mean) / std; a graph that
    takes UINT8 gets the pixels as they are.
    """

    def __init__(self, graph, name, layout, *, colour="RGB", scale=1 / 255, mean=(0,), std=(1,)):
        tensor = tensor_named(name, graph.inputs)
        height, width, channels = (tensor.shape[axis] for axis in AXES[layout])
        self.rows, self.columns = bounds(height, graph.dynamic), bounds(width, graph.dynamic)
        self.channels = bounds(channels, graph.dynamic).max
        for constant, numbers in (("MEAN", mean), ("STD", std)):
            if len(numbers) not in {1, self.channels}:
                raise ValueError(
                    f"{constant}: expected one number or {self.channels}, found {len(numbers)}"
                )
        self.name, self.layout, self.colour = name, layout, colour
        self.dtype = DTYPES[tensor.datatype]
        self.scale = scale
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)

    def frame(self, height, width, *, side=None, multiple=1):
        """Rows, columns and scale to show a picture of this size with.

        A fixed size is filled as far as the picture's shape allows. Open sizes: the long side
        becomes `side` (None: stays as it is) if the bounds allow it, and the frame is the next
        `multiple` around it.
        """
        rows, columns = self.rows.multiples(multiple), self.columns.multiples(multiple)
        room = (rows.max / height, columns.max / width)
        fixed = [r for r, b in zip(room, (rows, columns), strict=True) if b.fixed]
        wanted = fixed or [side / max(height, width) if side else 1.0]
        scale = min(*wanted, *room)
        tall, wide = (scaled(length, scale) for length in (height, width))
        return rows.hold(tall, multiple), columns.hold(wide, multiple), scale

    def tensor(self, pixels):
        """uint8 RGB [height, width, 3] as the graph takes it, one picture a batch."""
        if self.channels == 1:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, np.newaxis]
        elif self.colour == "BGR":
            pixels = pixels[:, :, ::-1]
        if self.dtype != np.uint8:
            numbers = (pixels.astype(np.float32) * np.float32(self.scale) - self.mean) / self.std
            pixels = numbers.astype(self.dtype)
        if self.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels[np.newaxis])


def decode(image):
    """uint8 RGB [height, width, 3] of a JPEG or PNG file, or of an array of such pixels.

    A file is turned as its EXIF data says. Raises ValueError, which the caller gets as
    INVALID_ARGUMENT, if it is no image.
    """
    if isinstance(image, np.ndarray):
        return checked(image)
    try:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # no bytes at all, or more pixels than the host decodes
        pixels = None
    if pixels is None:
        raise ValueError(
            f"image: expected a JPEG or PNG file, found {len(image)} bytes that do not decode"
        )
    return pixels


def checked(pixels):
    """An array, if it is a picture."""
    wrong = pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size
    if wrong or pixels.dtype != np.uint8:
        raise ValueError(
            f"image: expected uint8 RGB pixels of [height, width, 3], "
            f"found {pixels.dtype} {list(pixels.shape)}"
        )
    return pixels


def scaled(length, scale):
    return max(round(length * scale), 1)


def resize(pixels, width, height):
    """Means of pixels where a picture shrinks, lines between them where it grows."""
    shrinks = width < pixels.shape[1] or height < pixels.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=how)


def letterbox(pixels, rows, columns, scale, fill=0, *, centred=True):
    """A picture scaled into a frame of one colour, and its Placement there."""
    height, width = pixels.shape[:2]
    tall, wide = min(scaled(height, scale), rows), min(scaled(width, scale), columns)
    top, left = ((rows - tall) // 2, (columns - wide) // 2) if centred else (0, 0)
    framed = cv2.copyMakeBorder(
        resize(pixels, wide, tall),
        top,
        rows - tall - top,
        left,
        columns - wide - left,
        cv2.BORDER_CONSTANT,
        value=(fill, fill, fill),
    )
    return framed, Placement(left, top, wide, tall, wide / width, tall / height)


def centre_crop(pixels, short, rows, columns):
    """The middle of a picture whose short side was scaled to `short`, or more if that is needed."""
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"image: expected sides that differ at most {MAX_ASPECT} times, found {width}x{height}"
        )
    scale = max(short / min(height, width), rows / height, columns / width)
    tall, wide = max(scaled(height, scale), rows), max(scaled(width, scale), columns)
    top, left = round((tall - rows) / 2), round((wide - columns) / 2)
    return resize(pixels, wide, tall)[top : top + rows, left : left + columns]


def fitted(pixels, graph_input, how, *, short, fill):
    """A picture in the one size that a graph is shown: the fixed one, or `opt` of its bounds.

    `how` is "crop" (see `centre_crop`), "letterbox" (all of it, with bars of the grey `fill`) or
    "stretch" (all of it, out of shape).
    """
    rows, columns = graph_input.rows.opt, graph_input.columns.opt
    if how == "crop":
        return centre_crop(pixels, short, rows, columns)
    if how == "stretch":
        return resize(pixels, columns, rows)
    height, width = pixels.shape[:2]
    framed, _ = letterbox(pixels, rows, columns, min(rows / height, columns / width), fill)
    return framed


def boxes_on_picture(boxes, placement, height, width):
    """Boxes (left, top, right, bottom) of a frame as boxes of the picture in it, float32."""
    corner = np.array([placement.left, placement.top] * 2)
    scale = np.array([placement.across, placement.down] * 2)
    return np.clip((boxes - corner) / scale, 0, [width, height] * 2).astype(np.float32)
