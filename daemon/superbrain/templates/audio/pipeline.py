"""Audio: sound in, the graph's answer to every window of it out.

Responsible for cutting sound into the windows that the graph takes, for filling the last one up
with silence, and for what a recurrent graph remembers from window to window. Change the constants
to those of your training. Between requests nothing is kept: a caller who sends a stream part by
part (each but the last whole hops long) gets back all that is to be remembered as one tensor,
`state`, and sends it with the next part; zeros are the beginning of a stream. So any worker, also
one just swapped in, can go on.
"""

import numpy as np
from sizes import bounds, tensor_named

GRAPH = "model"
INPUT = "input"
SHAPE = (-1,)  # of one window in that input, behind the batch
BATCHED = True  # its first size is a batch, of several windows where the graph allows it
OUTPUTS = ("output",)  # the graph's answers, one row for each window
STATES = {}  # {output: input}: what the graph remembers for the next window
STATE_SHAPES = {}  # of these inputs, for one stream
SCALARS = {}  # what else the graph takes, such as the rate: {input: number}

RATE = 16_000  # samples a second, as the network was trained
WINDOW = 16_000  # samples that the graph is given at once
HOP = 16_000  # samples from one window to the next; the rest of a window lies before it
MAX_SECONDS = 600


DTYPES = {
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "INT32": np.int32,
    "INT64": np.int64,
}


class Pipeline:
    """One graph called many times for one request, so `run`."""

    def __init__(self, bundle):
        graph = bundle.graph(GRAPH)
        first = tensor_named(INPUT, graph.inputs).shape[0] if BATCHED else 1
        self.batch = bounds(first, graph.dynamic)
        self.dtypes = {t.name: DTYPES[t.datatype] for t in graph.inputs}

    def run(self, request, graphs):
        sound = floating(request["audio"])
        context, states = self.remembered(request.get("state"))
        frames = windows(context, sound)
        answers, states = self.answers(frames, states, graphs[GRAPH])
        answers = {name: np.concatenate(rows) for name, rows in answers.items()}
        if "state" in request:
            parts = (states[name].ravel() for name in STATE_SHAPES)
            answers["state"] = np.concatenate([frames[-1, HOP:], *parts]).astype(np.float32)
        return answers

    def remembered(self, state):
        """The sound before this request's, and what the graph remembers of it."""
        sizes = [WINDOW - HOP, *(int(np.prod(shape)) for shape in STATE_SHAPES.values())]
        state = np.zeros(sum(sizes), np.float32) if state is None else state
        if len(state) != sum(sizes):
            raise ValueError(f"state: expected {sum(sizes)} numbers, found {len(state)}")
        context, *parts = np.split(state, np.cumsum(sizes)[:-1])
        named = zip(STATE_SHAPES.items(), parts, strict=True)
        return context, {n: p.reshape(shape).astype(self.dtypes[n]) for (n, shape), p in named}

    def answers(self, frames, states, graph):
        """The graph's outputs for all windows, and its state after the last."""
        at_once = 1 if STATES else self.batch.max
        scalars = {n: np.array(number, self.dtypes[n]) for n, number in SCALARS.items()}
        rows = {name: [] for name in OUTPUTS}
        for start in range(0, len(frames), at_once):
            batch = frames[start : start + at_once]
            room = max(self.batch.min - len(batch), 0)
            given = np.pad(batch, ((0, room), (0, 0))).astype(self.dtypes[INPUT])
            shape = (-1, *SHAPE) if BATCHED else SHAPE
            outputs = graph({INPUT: given.reshape(shape), **states, **scalars})
            states = {taken: outputs[name] for name, taken in STATES.items()}
            for name in OUTPUTS:
                rows[name].append(outputs[name][: len(batch)] if BATCHED else outputs[name][None])
        return rows, states


def floating(audio):
    """The sound as float32 between -1 and 1, if it is sound as this network knows it.

    Raises ValueError, which the caller gets as INVALID_ARGUMENT. One sample that is not a number
    would spoil the state of a stream for good; whole-number samples are the commonest mistake.
    """
    if not 0 < len(audio) <= MAX_SECONDS * RATE:
        raise ValueError(
            f"audio: expected 1 sample to {MAX_SECONDS} seconds at {RATE} Hz, "
            f"found {len(audio)} samples"
        )
    if audio.dtype == np.int16:
        return audio.astype(np.float32) / 32768
    loudest = float(np.abs(audio).max())
    if not loudest <= 2:
        raise ValueError(f"audio: expected samples between -1 and 1, found {loudest}")
    return audio


def windows(context, sound):
    """All windows, float32 [count, WINDOW]; context lies before the sound, silence after it."""
    missing = np.zeros(-len(sound) % HOP, np.float32)
    whole = np.concatenate([context, sound, missing])
    return np.lib.stride_tricks.sliding_window_view(whole, WINDOW)[::HOP]
