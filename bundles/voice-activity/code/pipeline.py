"""Voice activity: 16 kHz sound in, the probability of speech every 32 ms and the stretches out.

Responsible for how Silero VAD is fed: windows of 512 samples, each with the 64 samples before it in
front, and a recurrent state that goes from window to window. Between requests this pipeline keeps
nothing. A caller who sends a stream part by part gets back all that is to be remembered as one
tensor of 320 numbers (64 samples of context, 2 × 128 of recurrent state) and sends it with the next
part; zeros are the beginning of a stream. So any worker, also one just swapped in, can go on.
"""

import numpy as np
from segments import Segmenter

RATE = 16000
WINDOW = 512
CONTEXT = 64
RECURRENT = (2, 1, 128)
MAX_SECONDS = 600


class Pipeline:
    """One graph called many times for one request, so `run`."""

    def __init__(self, bundle):  # noqa: ARG002
        self.segmenter = Segmenter(rate=RATE, window=WINDOW)

    def run(self, request: dict, graphs: dict) -> dict:
        audio, state = checked(request["audio"]), request["state"]
        context, recurrent = state[:CONTEXT], state[CONTEXT:].reshape(RECURRENT)
        probabilities = []
        for window in windows(audio, context):
            answer = graphs["vad"](
                {"input": window[np.newaxis], "state": recurrent, "sr": np.array(RATE)}
            )
            probabilities.append(answer["output"][0, 0])
            recurrent = answer["stateN"]
            context = window[-CONTEXT:]
        return {
            "probabilities": np.array(probabilities, np.float32),
            "segments": self.segmenter.segments(probabilities, len(audio)),
            "state": np.concatenate([context, recurrent.ravel()]),
        }


def windows(audio: np.ndarray, context: np.ndarray) -> np.ndarray:
    """All windows with their context, [count, 64 + 512]; the last is filled up with silence."""
    missing = -len(audio) % WINDOW
    whole = np.concatenate([context, audio, np.zeros(missing, np.float32)])
    if len(whole) < CONTEXT + WINDOW:
        return np.empty((0, CONTEXT + WINDOW), np.float32)
    return np.lib.stride_tricks.sliding_window_view(whole, CONTEXT + WINDOW)[::WINDOW]


def checked(audio: np.ndarray) -> np.ndarray:
    """The audio, if it is sound as this network knows it.

    Raises ValueError, which the caller gets as INVALID_ARGUMENT. One sample that is not a number
    would spoil the state of a stream for good; whole-number samples are the commonest mistake.
    """
    if len(audio) > MAX_SECONDS * RATE:
        raise ValueError(
            f"audio: expected at most {MAX_SECONDS} seconds, found {len(audio) / RATE:.0f}"
        )
    loudest = float(np.abs(audio).max(initial=0.0))
    if not loudest <= 2:  # not a number is not <= 2 either; resampling may overshoot 1 a little
        raise ValueError(f"audio: expected samples between -1 and 1, found {loudest}")
    return audio
