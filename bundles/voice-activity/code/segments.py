"""From probabilities of speech to stretches of speech.

Responsible for the rules that make stretches worth cutting at: speech begins at 0.5 but ends only
below 0.35, pauses shorter than 0.1 s belong to it, stretches of 0.25 s and less are dropped, and
each is widened by 0.03 s at both ends. They are those of `get_speech_timestamps` in silero-vad 6.2.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

BEGIN = 0.5
END = 0.35
MIN_PAUSE_SECONDS = 0.1
MIN_SPEECH_SECONDS = 0.25
PADDING_SECONDS = 0.03


class Segmenter:
    """Knows how many samples a window has and how many make a second."""

    def __init__(self, rate: int, window: int):
        self.rate = rate
        self.window = window

    def segments(self, probabilities: Sequence[float], samples: int) -> np.ndarray:
        """Start and end of every stretch in seconds, float32 [count, 2]."""
        longer = [
            (start, end)
            for start, end in self.stretches(probabilities, samples)
            if end - start > MIN_SPEECH_SECONDS * self.rate
        ]
        padded = self.padded(longer, samples)
        return (np.array(padded).reshape(-1, 2) / self.rate).astype(np.float32)

    def stretches(self, probabilities: Sequence[float], samples: int) -> list[tuple[int, int]]:
        """Start and end in samples, bridged over short pauses, not yet padded."""
        found = []
        start = pause = None
        for index, probability in enumerate(probabilities):
            now = index * self.window
            if probability >= BEGIN:
                pause = None
                start = now if start is None else start
            elif start is not None and probability < END:
                pause = now if pause is None else pause
                if now - pause >= MIN_PAUSE_SECONDS * self.rate:
                    found.append((start, pause))
                    start = pause = None
        if start is not None:
            found.append((start, samples))
        return found

    def padded(self, stretches: list[tuple[int, int]], samples: int) -> list[list[int]]:
        """Each stretch widened; two that come too close meet in the middle of their pause."""
        padding = int(PADDING_SECONDS * self.rate)
        wider = [[start, end] for start, end in stretches]
        for left, right in pairwise(wider):
            share = min(padding, (right[0] - left[1]) // 2)
            left[1] += share
            right[0] -= share
        if wider:
            wider[0][0] = max(wider[0][0] - padding, 0)
            wider[-1][1] = min(wider[-1][1] + padding, samples)
        return wider
