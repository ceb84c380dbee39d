"""Tables: rows of named columns in, a label with probabilities, or a value, for every row out.

Responsible for the order of the columns, whatever order a caller sends, for values that are
missing, and for the names of the classes. Change the constants; assets/columns.txt names the
columns in the order of the training, one a line.
"""

import numpy as np
from rows import answer, in_runs
from sizes import bounds, tensor_named

GRAPH = "model"
INPUT = "features"
OUTPUTS = {"label": "label", "probabilities": "probabilities"}  # of the answer: of the graph
COLUMNS = "columns.txt"  # in assets/
LABELS = "labels.txt"  # in assets/, one label a line, class 0 first; "" where there are none

# A value that is missing is NaN. "refuse" tells the caller where; "pass" leaves it to the graph.
MISSING = "refuse"
INSTEAD = {}  # what stands for a missing value of a column: {"age": 41.0}


class Pipeline:
    """Rows go to the graph as many at once as it takes, so `run`."""

    def __init__(self, bundle):
        graph = bundle.graph(GRAPH)
        tensor = tensor_named(INPUT, graph.inputs)
        self.dtype = {"FP64": np.float64}.get(tensor.datatype, np.float32)
        self.columns = bundle.text(COLUMNS).splitlines()
        self.labels = bundle.text(LABELS).splitlines() if LABELS else []
        self.rows = bounds(tensor.shape[0], graph.dynamic)
        check_columns(self.columns, tensor.shape[1])

    def run(self, request, graphs):
        given = [name.decode(errors="replace") for name in request["columns"]]
        features = in_order(request["features"], given, self.columns)
        table = without_missing(features, self.columns).astype(self.dtype)

        def run(rows, room):
            return graphs[GRAPH]({INPUT: np.pad(table[rows], ((0, room), (0, 0)))})

        return answer(in_runs(run, len(table), self.rows, OUTPUTS), self.labels)


def check_columns(columns, width):
    """Raise ValueError unless the graph takes this many columns."""
    if isinstance(width, int) and len(columns) != width:
        raise ValueError(f"assets/{COLUMNS}: expected {width} columns, found {len(columns)}")


def in_order(features, given, columns):
    """The features with their columns in the order of the training.

    Raises ValueError, which the caller gets as INVALID_ARGUMENT, unless exactly these are there.
    """
    if len(given) != features.shape[1] or not len(features):
        raise ValueError(
            f"features: expected at least one row of {len(given)} columns, as `columns` names, "
            f"found {list(features.shape)}"
        )
    missing, unknown = set(columns) - set(given), set(given) - set(columns)
    if missing or unknown or len(given) != len(columns):
        raise ValueError(
            f"columns: expected each of {', '.join(columns)} once, "
            f"found {', '.join(given) or 'none'}"
        )
    return features[:, [given.index(name) for name in columns]]


def without_missing(features, columns):
    """The features with INSTEAD in place of missing values; what is still missing is refused."""
    table = features.copy()
    for name, value in INSTEAD.items():
        column = table[:, columns.index(name)]
        column[np.isnan(column)] = value
    bad = np.isinf(table) if MISSING == "pass" else ~np.isfinite(table)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"features: expected numbers, found {table[row, column]} in row {row}, "
            f"column {columns[column]}"
        )
    return table
