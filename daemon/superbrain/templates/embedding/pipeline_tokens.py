"""Embedding of texts: token ids in, a vector of length 1 for each text out.

Responsible for the bounds and the padding of the graph's batch, for pooling over the tokens that
count, and for the length. Making tokens of text stays with the caller, who has the tokenizer.
Change the constants to those of your training; sizes and their bounds stand in bundle.toml.
"""

import numpy as np
from sizes import bounds, tensor_named
from vectors import pooled, unit

GRAPH = "model"
TOKENS = "input_ids"  # inputs of the graph; the empty ones it does not have
MASK = "attention_mask"
SEGMENTS = "token_type_ids"  # gets zeros
POSITIONS = ""  # gets 0, 1, 2 …
OUTPUT = "last_hidden_state"
POOLING = "mean"  # of the tokens that count; "first" token, or "none": the graph has done it
VOCABULARY = 0  # token ids are below it; 0 is not known, and the graph has to refuse them
PADDING = 0  # the token that fills shorter texts up; it does not count


class Pipeline:
    """The graph is called once for as many texts as it takes, so `run`."""

    def __init__(self, bundle):
        graph = bundle.graph(GRAPH)
        tokens = tensor_named(TOKENS, graph.inputs)
        self.batch, self.length = (bounds(size, graph.dynamic) for size in tokens.shape)
        self.dtype = np.int32 if tokens.datatype == "INT32" else np.int64

    def run(self, request, graphs):
        tokens, mask = checked(request["tokens"], request["mask"], self.length)
        vectors = []
        for start in range(0, len(tokens), self.batch.max):
            rows = slice(start, start + self.batch.max)
            room = self.batch.min, self.length.min
            given, counts = padded(tokens[rows], room, PADDING), padded(mask[rows], room, 0)
            inputs = inputs_of(given.astype(self.dtype), counts.astype(self.dtype))
            output = graphs[GRAPH](inputs)[OUTPUT]
            vectors.append(pooled(output, POOLING, counts)[: len(mask[rows])])
        return {"embedding": unit(np.concatenate(vectors))}


def checked(tokens, mask, length):
    """The request, if the graph can take it. Raises ValueError, which is INVALID_ARGUMENT."""
    if tokens.shape != mask.shape:
        raise ValueError(
            f"mask: expected the shape of tokens, {list(tokens.shape)}, found {list(mask.shape)}"
        )
    if not tokens.size or tokens.shape[1] > length.max:
        raise ValueError(
            f"tokens: expected at least one text of 1 to {length.max} tokens, "
            f"found {list(tokens.shape)}"
        )
    least, most = int(tokens.min()), int(tokens.max())
    if least < 0 or (VOCABULARY and most >= VOCABULARY):
        below = f"0 to {VOCABULARY - 1}" if VOCABULARY else "0 or more"
        raise ValueError(f"tokens: expected ids of {below}, found {least} to {most}")
    if not np.isin(mask, (0, 1)).all() or not mask.any(axis=1).all():
        raise ValueError("mask: expected 1 for tokens that count, at least one a text, else 0")
    return tokens, mask


def padded(array, room, value):
    """At least so many rows and columns; new ones hold `value`."""
    missing = [(0, max(least - size, 0)) for least, size in zip(room, array.shape, strict=True)]
    return np.pad(array, missing, constant_values=value)


def inputs_of(tokens, mask):
    """What the graph takes, by name."""
    positions = np.tile(np.arange(tokens.shape[1], dtype=tokens.dtype), (len(tokens), 1))
    inputs = {TOKENS: tokens, MASK: mask, SEGMENTS: np.zeros_like(tokens), POSITIONS: positions}
    return {name: array for name, array in inputs.items() if name}
