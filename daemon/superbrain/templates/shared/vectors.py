"""Vectors: from what an embedding network gives for a batch to one vector of length 1 for each."""

import numpy as np


def pooled(output, how, mask=None):
    """One vector for each of a batch, float32 [batch, features].

    `how` is "mean" (over the positions that `mask`, [batch, positions], marks with 1; all without
    it), "first" (the first position, such as [CLS]) or "none" (the graph has pooled already).
    Output is [batch, positions, features], of "none" [batch, features, …].
    """
    output = output.astype(np.float32)
    if how == "none":
        return output.reshape(len(output), -1)
    if how == "first":
        return output[:, 0]
    if mask is None:
        return output.mean(axis=1)
    weights = mask.astype(np.float32)[:, :, np.newaxis]
    return (output * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)


def unit(vectors):
    """The same directions with length 1; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
