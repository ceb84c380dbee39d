"""Wine: rows of measurements in, a class with its name and probabilities for every row out.

Responsible for refusing what the model would answer with nonsense (a missing value that became
"not a number") and for the names of the classes. Scaling is part of the graph.
"""

import numpy as np


class Pipeline:
    """One graph, so `preprocess` and `postprocess`: the host runs the graph in between."""

    def __init__(self, bundle):
        self.classes = bundle.text("classes.txt").splitlines()
        self.columns = bundle.text("columns.txt").splitlines()
        self.rows = bundle.graph("wine").dynamic["rows"]

    def preprocess(self, request: dict) -> dict[str, np.ndarray]:
        features = request["features"]
        least, most = self.rows.min, self.rows.max
        if not least <= len(features) <= most:
            raise ValueError(f"features: expected {least} to {most} rows, found {len(features)}")
        bad = np.argwhere(~np.isfinite(features))
        if bad.size:
            row, column = bad[0]
            raise ValueError(
                f"features: expected numbers, found {features[row, column]} in row {row}, "
                f"column {self.columns[column]}"
            )
        return {"features": features}

    def postprocess(self, outputs: dict[str, np.ndarray], request: dict) -> dict:  # noqa: ARG002
        labels = outputs["label"]
        return {
            "label": labels,
            "name": [self.classes[label] for label in labels],
            "probabilities": outputs["probabilities"],
        }
