"""From an image to the strips that the networks read.

Responsible for cutting a (possibly slanted) box out of an image, and for the shape in which cls and
rec take it: STRIP_HEIGHT pixels high, scaled to -1…1, zeros to the right of the text.
"""

import math

import cv2
import numpy as np

STRIP_HEIGHT = 48
# A box this much higher than wide holds a line that runs upwards or downwards.
VERTICAL_RATIO = 1.5


def crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The pixels inside `box` ([4, 2], clockwise from top left), straightened, lying down."""
    top, right, bottom, left = np.linalg.norm(box - np.roll(box, -1, axis=0), axis=1)
    width, height = max(int(max(top, bottom)), 1), max(int(max(left, right)), 1)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    straight = cv2.warpPerspective(
        image,
        cv2.getPerspectiveTransform(box.astype(np.float32), corners),
        (width, height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.rot90(straight) if height >= VERTICAL_RATIO * width else straight


def aspect(strip: np.ndarray) -> float:
    """How many times wider than high."""
    return strip.shape[1] / strip.shape[0]


def stack(strips: list[np.ndarray], width: int, *, least: int = 1) -> np.ndarray:
    """The strips as one batch, float32 [N, 3, STRIP_HEIGHT, width], N at least `least`.

    A longer strip is squeezed to fit.
    """
    batch = np.zeros((max(len(strips), least), 3, STRIP_HEIGHT, width), np.float32)
    for row, strip in zip(batch, strips, strict=False):
        used = min(width, math.ceil(STRIP_HEIGHT * aspect(strip)))
        resized = cv2.resize(strip, (used, STRIP_HEIGHT)).astype(np.float32)
        row[:, :, :used] = resized.transpose(2, 0, 1) / 127.5 - 1
    return batch
