"""Tables: columns by their names in, a label with probabilities, or a value, for every row out.

For graphs that take every column as an input of its own, numbers and texts alike. Responsible for
columns of one length, for values that are missing, and for the names of the classes.
"""

import numpy as np
from rows import answer, in_runs
from sizes import bounds

GRAPH = "model"
OUTPUTS = {"label": "label", "probabilities": "probabilities"}  # of the answer: of the graph
LABELS = "labels.txt"  # in assets/, one label a line, class 0 first; "" where there are none

# A number that is missing is NaN. "refuse" tells the caller where; "pass" leaves it to the graph.
MISSING = "refuse"
INSTEAD = {}  # what stands for a missing number of a column: {"age": 41.0}


class Pipeline:
    """Rows go to the graph as many at once as it takes, so `run`."""

    def __init__(self, bundle):
        graph = bundle.graph(GRAPH)
        self.shapes = {tensor.name: tensor.shape for tensor in graph.inputs}
        self.labels = bundle.text(LABELS).splitlines() if LABELS else []
        self.rows = bounds(graph.inputs[0].shape[0], graph.dynamic)

    def run(self, request, graphs):
        check_lengths(request)
        table = {
            name: without_missing(name, request[name]).reshape(-1, *shape[1:])
            for name, shape in self.shapes.items()
        }

        def run(rows, room):  # the last row stands for those that the graph wants and are not there
            parts = {name: [column[rows], *[column[-1:]] * room] for name, column in table.items()}
            return graphs[GRAPH]({name: np.concatenate(part) for name, part in parts.items()})

        count = len(next(iter(table.values())))
        return answer(in_runs(run, count, self.rows, OUTPUTS), self.labels)


def check_lengths(request):
    """Raise ValueError, which is INVALID_ARGUMENT, unless all columns have as many rows."""
    lengths = {name: len(column) for name, column in request.items()}
    if len(set(lengths.values())) > 1 or not min(lengths.values()):
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"expected as many rows in every column, at least one; found {found}")


def without_missing(name, column):
    """The column with INSTEAD in place of missing numbers; what is still missing is refused."""
    if column.dtype.kind != "f":
        return column
    if name in INSTEAD:
        column = np.where(np.isnan(column), column.dtype.type(INSTEAD[name]), column)
    bad = np.isinf(column) if MISSING == "pass" else ~np.isfinite(column)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name}: expected numbers, found {column[row]} in row {row}")
    return column
