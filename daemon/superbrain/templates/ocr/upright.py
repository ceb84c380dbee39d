"""Turns strips of text that are upside down.

Responsible for what the cls network is asked (a strip squeezed into 192 × 48) and for believing it
only when it is sure: turning a good strip loses a line that could be read.
"""

import numpy as np
from crop import stack

BATCH = 6
WIDTH = 192
MIN_CONFIDENCE = 0.9
UPSIDE_DOWN = 1  # the network's second class


def turn_upright(strips: list[np.ndarray], graph, name: str = "x") -> list[np.ndarray]:
    """The same strips in the same order, those surely upside down turned by 180 degrees.

    `name` is the graph's input.
    """
    turned = []
    for start in range(0, len(strips), BATCH):
        batch = strips[start : start + BATCH]
        (probabilities,) = graph({name: stack(batch, WIDTH)}).values()
        sure = probabilities[:, UPSIDE_DOWN] > MIN_CONFIDENCE
        turned += [np.rot90(s, 2) if t else s for s, t in zip(batch, sure, strict=True)]
    return turned
