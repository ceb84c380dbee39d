"""Optical character recognition: an image file in, lines of text with scores and boxes out.

Responsible for the order of the steps and for what a caller sees; each has a module of its own:

    detect      image -> boxes around lines of text               graph det
    crop        image and box -> a strip of pixels
    upright     strips -> the same strips, none upside down        graph cls
    recognise   strips -> text and score                           graph rec

What was read badly is turned and read once more, here. The numbers in these modules (thresholds,
sizes, batch size) are those of RapidOCR 3.10, which is what the networks are usually run with.
"""

import cv2
import numpy as np
from crop import crop
from detect import find_boxes
from recognise import Recogniser
from upright import turn_upright

MIN_SCORE = 0.5
SURE_SCORE = 0.9


class Pipeline:
    """Several graphs, so `run`: it is given them by name and calls each as often as it needs."""

    def __init__(self, bundle):
        self.recogniser = Recogniser(bundle.graph("rec"))

    def run(self, request: dict, graphs: dict) -> dict:
        image = decode(request["image"])
        boxes = find_boxes(image, graphs["det"])
        strips = turn_upright([crop(image, box) for box in boxes], graphs["cls"])
        texts = self.read_doubtful_again(
            self.recogniser.read(strips, graphs["rec"]), strips, graphs["rec"]
        )
        found = [
            (text, score, box)
            for (text, score), box in zip(texts, boxes, strict=True)
            if score >= MIN_SCORE and text.strip()
        ]
        return {
            "lines": [text for text, _, _ in found],
            "scores": [score for _, score, _ in found],
            "boxes": np.array([box for _, _, box in found], np.float32).reshape(-1, 4, 2),
        }

    def read_doubtful_again(self, texts: list, strips: list, graph) -> list:
        """The better of two readings of every strip that was read with little confidence.

        The small cls network often errs, and a line read upside down is rubbish with a low score:
        so the score tells.
        """
        doubtful = [i for i, (_, score) in enumerate(texts) if score < SURE_SCORE]
        again = self.recogniser.read([np.rot90(strips[i], 2) for i in doubtful], graph)
        better = list(texts)
        for i, reading in zip(doubtful, again, strict=True):
            better[i] = max(texts[i], reading, key=lambda reading: reading[1])
        return better


def decode(file: bytes) -> np.ndarray:
    """The pixels of an image file as uint8 BGR [height, width, 3], turned as its EXIF data says."""
    try:
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes at all, or more pixels than the host decodes
        image = None
    if image is None:
        raise ValueError(
            f"image: expected a JPEG or PNG file, found {len(file)} bytes that do not decode"
        )
    return image
