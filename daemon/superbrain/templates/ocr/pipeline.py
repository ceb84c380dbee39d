"""Optical character recognition: a picture in; lines of text with scores and boxes out.

Responsible for the order of the steps and for what a caller sees; each has a module of its own:

    detect      image -> boxes around lines of text                graph det
    crop        image and box -> a strip of pixels
    upright     strips -> the same strips, none upside down        graph cls, if there is one
    recognise   strips -> text and score                           graph rec

What was read badly is turned and read once more, here. The numbers in these modules (thresholds,
sizes, batch size) are those of RapidOCR 3.10, which is what such networks are usually run with;
change them there. Sizes of graphs and their bounds stand in bundle.toml.
"""

import cv2
import numpy as np
from crop import crop
from detect import Detector
from picture import decode
from recognise import Recogniser
from upright import turn_upright

DET = "det"
REC = "rec"
CLS = ""  # the graph that tells which strips are upside down; empty for none
DICTIONARY = ""  # in assets/, one character a line; empty: metadata key `character` of graph rec

MIN_SCORE = 0.5  # lines that were read with less are left out
SURE_SCORE = 0.9  # lines that were read with less are turned and read again


class Pipeline:
    """Several graphs, so `run`: it is given them by name and calls each as often as it needs."""

    def __init__(self, bundle):
        rec = bundle.graph(REC)
        self.detector = Detector(bundle.graph(DET))
        self.recogniser = Recogniser(rec, dictionary_of(bundle, rec))
        self.cls_input = bundle.graph(CLS).inputs[0].name if CLS else ""

    def run(self, request: dict, graphs: dict) -> dict:
        image = cv2.cvtColor(decode(request["image"]), cv2.COLOR_RGB2BGR)
        boxes = self.detector.find(image, graphs[DET])
        strips = [crop(image, box) for box in boxes]
        if CLS:
            strips = turn_upright(strips, graphs[CLS], self.cls_input)
        readings = self.recogniser.read(strips, graphs[REC])
        found = [
            (text, score, box)
            for (text, score), box in zip(
                self.read_doubtful_again(readings, strips, graphs[REC]), boxes, strict=True
            )
            if score >= MIN_SCORE and text.strip()
        ]
        return {
            "lines": [text for text, _, _ in found],
            "scores": [score for _, score, _ in found],
            "boxes": np.array([box for _, _, box in found], np.float32).reshape(-1, 4, 2),
        }

    def read_doubtful_again(self, texts: list, strips: list, graph) -> list:
        """The better of two readings of every strip that was read with little confidence.

        A small cls network often errs, and a line read upside down is rubbish with a low score: so
        the score tells.
        """
        doubtful = [i for i, (_, score) in enumerate(texts) if score < SURE_SCORE]
        again = self.recogniser.read([np.rot90(strips[i], 2) for i in doubtful], graph)
        better = list(texts)
        for i, reading in zip(doubtful, again, strict=True):
            better[i] = max(texts[i], reading, key=lambda reading: reading[1])
        return better


def dictionary_of(bundle, rec) -> str:
    """The characters that the network reads, one a line."""
    if DICTIONARY:
        return bundle.text(DICTIONARY).removesuffix("\n")
    if "character" not in rec.metadata:
        raise ValueError("expected metadata `character` in graph rec, found none: set DICTIONARY")
    return rec.metadata["character"]
