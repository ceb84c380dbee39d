"""Reads strips of text.

Responsible for batching strips of like width, so that little of a batch is padding, and for
decoding the network's answer by connectionist temporal classification (CTC): the best character at
every position, repeats merged, blanks dropped (Graves et al. 2006, "best path decoding").
"""

from collections.abc import Iterator

import numpy as np
from crop import STRIP_HEIGHT, aspect, stack

BLANK = 0


class Recogniser:
    """Knows the rec graph: its alphabet, and how many strips of which width it takes at once.

    The alphabet is the blank, the dictionary's characters, one a line, and the space.
    """

    def __init__(self, graph):
        # Not splitlines(): that would also split at the exotic separators a dictionary may hold.
        self.alphabet = ["", *graph.metadata["character"].split("\n"), " "]
        self.batch = graph.dynamic["N"].max
        self.width = graph.dynamic["W"]

    def read(self, strips: list[np.ndarray], graph) -> list[tuple[str, float]]:
        """Each strip's text and score, in the order of the strips."""
        readings: list[tuple[str, float]] = [("", 0.0)] * len(strips)
        for indices in batches_by_aspect(strips, self.batch):
            batch = [strips[i] for i in indices]
            (probabilities,) = graph({"x": stack(batch, self.batch_width(batch))}).values()
            for i, row in zip(indices, probabilities, strict=True):
                readings[i] = self.decode(row)
        return readings

    def batch_width(self, strips: list[np.ndarray]) -> int:
        """Wide enough for the widest strip, within what the graph allows."""
        widest = int(STRIP_HEIGHT * max(aspect(strip) for strip in strips))
        return min(max(widest, self.width.min), self.width.max)

    def decode(self, probabilities: np.ndarray) -> tuple[str, float]:
        """Text and mean character probability of one strip ([positions, alphabet])."""
        best = probabilities.argmax(axis=1)
        kept = best != BLANK
        kept[1:] &= best[1:] != best[:-1]
        if not kept.any():
            return "", 0.0
        text = "".join(self.alphabet[i] for i in best[kept])
        return text, float(probabilities.max(axis=1)[kept].mean())


def batches_by_aspect(strips: list[np.ndarray], size: int) -> Iterator[list[int]]:
    """Indices of the strips, narrow ones first, at most `size` at a time."""
    order = sorted(range(len(strips)), key=lambda i: aspect(strips[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
