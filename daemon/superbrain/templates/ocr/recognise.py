"""Reads strips of text.

Responsible for batching strips of like width, so that little of a batch is padding, and for
decoding the network's answer by connectionist temporal classification (CTC): the best character at
every position, repeats merged, blanks dropped (Graves et al. 2006, "best path decoding").
"""

from collections.abc import Iterator

import numpy as np
from crop import STRIP_HEIGHT, aspect, stack
from sizes import bounds

BLANK = 0


class Recogniser:
    """Knows the rec graph: its alphabet, and how many strips of which width it takes at once.

    The alphabet is the blank, the dictionary's characters, one a line, and the space, which some
    networks do not know; those have one class less.
    """

    def __init__(self, graph, dictionary: str):
        # Not splitlines(): that would also split at the exotic separators a dictionary may hold.
        self.alphabet = alphabet_of(dictionary.split("\n"), graph.outputs[0].shape[-1])
        self.input = graph.inputs[0].name
        batch, _, _, width = graph.inputs[0].shape
        self.batch, self.width = bounds(batch, graph.dynamic), bounds(width, graph.dynamic)

    def read(self, strips: list[np.ndarray], graph) -> list[tuple[str, float]]:
        """Each strip's text and score, in the order of the strips."""
        readings: list[tuple[str, float]] = [("", 0.0)] * len(strips)
        for indices in batches_by_aspect(strips, self.batch.max):
            batch = [strips[i] for i in indices]
            strips_in = stack(batch, self.batch_width(batch), least=self.batch.min)
            (probabilities,) = graph({self.input: strips_in}).values()
            for i, row in zip(indices, probabilities[: len(batch)], strict=True):
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


def alphabet_of(characters: list[str], classes: int | str) -> list[str]:
    """What each class of the network stands for; `classes` is a number if the graph says so."""
    spaced = ["", *characters, " "]
    for alphabet in (spaced, spaced[:-1]):
        if classes == len(alphabet) or isinstance(classes, str):
            return alphabet
    raise ValueError(
        f"dictionary: expected {classes - 2} characters, one a line, for the {classes} classes "
        f"of the rec graph, found {len(characters)}"
    )


def batches_by_aspect(strips: list[np.ndarray], size: int) -> Iterator[list[int]]:
    """Indices of the strips, narrow ones first, at most `size` at a time."""
    order = sorted(range(len(strips)), key=lambda i: aspect(strips[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
