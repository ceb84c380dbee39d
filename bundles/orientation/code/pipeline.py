"""Page orientation: an image file in, the label of its orientation and a confidence out.

Responsible for what the network was trained to see (its short side scaled to 256 pixels, the middle
224 × 224 of that, RGB, ImageNet mean and deviation; the recipe is PaddleClas' for this network) and
for turning four probabilities into one label. The labels travel inside the ONNX file.
"""

import cv2
import numpy as np

SHORT_SIDE = 256
CROP = 224
# The network sees the middle square only: scaling a long ribbon would be huge and for nothing.
MAX_ASPECT = 20
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


class Pipeline:
    """One graph, so `preprocess` and `postprocess`: the host runs the graph in between."""

    def __init__(self, bundle):
        self.labels = bundle.graph("orientation").metadata["character"].splitlines()

    def preprocess(self, request: dict) -> dict[str, np.ndarray]:
        image = decode(request["image"])
        return {"x": normalise(centre_crop(scale_short_side(image)))[np.newaxis]}

    def postprocess(self, outputs: dict[str, np.ndarray], request: dict) -> dict:  # noqa: ARG002
        probabilities = outputs["fetch_name_0"][0]
        best = int(probabilities.argmax())
        return {"label": self.labels[best], "confidence": probabilities[best]}


def decode(file: bytes) -> np.ndarray:
    """The pixels of an image file as uint8 RGB [height, width, 3], turned as its EXIF data says.

    Raises ValueError, which the caller gets as INVALID_ARGUMENT, if it is no image we can use.
    """
    try:
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # no bytes at all, or more pixels than the host decodes
        image = None
    if image is None:
        raise ValueError(
            f"image: expected a JPEG or PNG file, found {len(file)} bytes that do not decode"
        )
    height, width = image.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"image: expected sides that differ at most {MAX_ASPECT} times, found {width}x{height}"
        )
    return image


def scale_short_side(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_LANCZOS4)


def centre_crop(image: np.ndarray) -> np.ndarray:
    top, left = ((side - CROP) // 2 for side in image.shape[:2])
    return image[top : top + CROP, left : left + CROP]


def normalise(image: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3] to float32 [3, height, width] around zero."""
    scaled = (image.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))
