"""Finds lines of text: boxes around what the det network marks as text.

Responsible for the size and scaling of the network's input, and for turning its map of
probabilities into boxes as in "Real-time Scene Text Detection with Differentiable Binarization"
(Liao et al. 2020): threshold, contours, smallest rectangles, each grown back ("unclipped") to the
full height of its text, since the network is trained to mark a shrunken core.
"""

import cv2
import numpy as np
from sizes import bounds

SHORT_SIDE = 736  # smaller images are enlarged to this, as far as the graph's bounds allow
STRIDE = 32  # the network halves its input five times
MEAN = (0.5, 0.5, 0.5)  # of blue, green and red: (pixel / 255 - MEAN) / STD
STD = (0.5, 0.5, 0.5)
MAX_RATIO = 8  # flatter images get black bars: text that touches the border is not found
MIN_HEIGHT = 30

PIXEL_THRESHOLD = 0.3
BOX_THRESHOLD = 0.5
UNCLIP_RATIO = 1.6
MIN_CORE_SIDE = 3  # pixels of the map, before growing …
MIN_BOX_SIDE = 5  # … and after
MIN_LINE_SIDE = 3  # pixels of the image
MAX_BOXES = 1000
SAME_LINE = 10  # pixels that the tops of boxes in one line may differ from the next


class Detector:
    """Knows the det graph: the name of its input and the sizes that it takes."""

    def __init__(self, graph):
        self.input = graph.inputs[0].name
        height, width = graph.inputs[0].shape[2:]
        self.rows, self.columns = bounds(height, graph.dynamic), bounds(width, graph.dynamic)

    def find(self, image: np.ndarray, graph) -> list[np.ndarray]:
        """Boxes ([4, 2], clockwise from top left, whole pixels of `image`) in reading order."""
        bar = bar_height(*image.shape[:2])
        padded = cv2.copyMakeBorder(image, bar, bar, 0, 0, cv2.BORDER_CONSTANT)
        height, width = padded.shape[:2]
        size = network_size(height, width, self.rows, self.columns)
        (maps,) = graph({self.input: network_input(padded, size)}).values()
        probability = maps[0, 0]
        map_height, map_width = probability.shape
        scale = np.array([width / map_width, height / map_height])
        limits = np.array([image.shape[1] - 1, image.shape[0] - 1])
        boxes = [
            np.clip(np.round(box * scale) - [0, bar], 0, limits).astype(np.float32)
            for box in boxes_in_map(probability)
        ]
        return in_reading_order([box for box in boxes if min(sides(box)) > MIN_LINE_SIDE])


def bar_height(height: int, width: int) -> int:
    """Rows of black to put above and below a very flat image; 0 for any other."""
    if height > MIN_HEIGHT and width <= MAX_RATIO * height:
        return 0
    return abs(max(width // MAX_RATIO, MIN_HEIGHT) * 2 - height) // 2


def network_size(height: int, width: int, rows, columns) -> tuple[int, int]:
    """Height and width to show the network: large enough to read, small enough to afford.

    Open sizes keep the shape of the image, to a stride; a fixed size is what it is.
    """
    scale = max(SHORT_SIDE / min(height, width), 1)
    scale = min(scale, rows.max / height, columns.max / width)
    return stride_near(height * scale, rows), stride_near(width * scale, columns)


def stride_near(side: float, limits) -> int:
    """The multiple of the stride that is nearest to a side, within the graph's bounds."""
    if limits.fixed:
        return limits.max
    within = limits.multiples(STRIDE)
    return min(max(round(int(side) / STRIDE) * STRIDE, within.min), within.max)


def network_input(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [height, width, 3] to float32 [1, 3, *size] around zero."""
    height, width = size
    resized = cv2.resize(image, (width, height)).astype(np.float32)
    scaled = (resized / 255 - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis])


def boxes_in_map(probability: np.ndarray) -> list[np.ndarray]:
    """Boxes in the map's own pixels, in no particular order."""
    mask = (probability > PIXEL_THRESHOLD).astype(np.uint8)
    mask = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours[:MAX_BOXES]:
        core = cv2.minAreaRect(contour)
        if min(core[1]) < MIN_CORE_SIDE or mean_inside(probability, core) < BOX_THRESHOLD:
            continue
        grown = unclip(core)
        if min(grown[1]) >= MIN_BOX_SIDE:
            boxes.append(clockwise_from_top_left(cv2.boxPoints(grown)))
    return boxes


def unclip(rectangle: tuple) -> tuple:
    """A rectangle ((x, y), (width, height), angle) grown on every side by area × ratio / perimeter.

    The paper offsets a polygon; the polygon is always a rectangle here, and the smallest rectangle
    around an offset rectangle is the rectangle with its sides moved out by that distance.
    """
    centre, (width, height), angle = rectangle
    distance = UNCLIP_RATIO * width * height / (2 * (width + height))
    return centre, (width + 2 * distance, height + 2 * distance), angle


def mean_inside(probability: np.ndarray, rectangle: tuple) -> float:
    """The mean probability of the pixels inside a rectangle."""
    points = cv2.boxPoints(rectangle)
    limits = np.array(probability.shape[::-1]) - 1
    left, top = np.clip(np.floor(points.min(axis=0)), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, limits).astype(int)
    window = probability[top : bottom + 1, left : right + 1]
    mask = np.zeros(window.shape, np.uint8)
    cv2.fillPoly(mask, [(points - [left, top]).astype(np.int32)], 1)
    return cv2.mean(window, mask)[0]


def clockwise_from_top_left(points: np.ndarray) -> np.ndarray:
    """The same four corners: top left (least x + y) first, then clockwise as seen on the screen."""
    x, y = (points - points.mean(axis=0)).T
    ordered = points[np.argsort(np.arctan2(y, x))]
    return np.roll(ordered, -int(ordered.sum(axis=1).argmin()), axis=0)


def sides(box: np.ndarray) -> tuple[float, float]:
    """Lengths of the top and of the left side."""
    return float(np.linalg.norm(box[1] - box[0])), float(np.linalg.norm(box[3] - box[0]))


def in_reading_order(boxes: list[np.ndarray]) -> list[np.ndarray]:
    """Top to bottom; boxes whose tops follow each other closely are one line, left to right."""
    downwards = sorted(boxes, key=lambda box: box[0, 1])
    lines: list[list[np.ndarray]] = []
    for box in downwards:
        if lines and box[0, 1] - lines[-1][-1][0, 1] < SAME_LINE:
            lines[-1].append(box)
        else:
            lines.append([box])
    return [box for line in lines for box in sorted(line, key=lambda box: box[0, 0])]
