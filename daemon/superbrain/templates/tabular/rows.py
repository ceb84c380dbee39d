"""Rows: a table of any length through a graph that takes so many at once; its answer in words."""

import numpy as np


def in_runs(run, count, bounds, outputs):
    """What the graph gives for all rows: {name in the answer: array}.

    `run` is given a slice of the rows and how many more the graph wants to have.
    """
    answers = {name: [] for name in outputs}
    for start in range(0, count, bounds.max):
        rows = slice(start, min(start + bounds.max, count))
        size = rows.stop - rows.start
        found = run(rows, max(bounds.min - size, 0))
        for name, output in outputs.items():
            answers[name].append(found[output][:size])
    return {name: np.concatenate(parts) for name, parts in answers.items()}


def answer(outputs, labels):
    """What a caller gets of the graph's outputs: names of classes, probabilities, values."""
    if "value" in outputs:
        return {"value": outputs["value"].reshape(len(outputs["value"]), -1).astype(np.float32)}
    probabilities = outputs["probabilities"].astype(np.float32)
    chosen = outputs.get("label", probabilities.argmax(axis=1)).ravel().tolist()
    names = [one if isinstance(one, bytes) else labels[one] for one in chosen]
    return {"label": names, "probabilities": probabilities}
